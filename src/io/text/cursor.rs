//! The position in a text, and the tokens there.

use crate::error::{Error, Result};

/// Deepest nesting of bodies and types: parsing recurses.
const MAX_DEPTH: usize = 64;

/// A literal as written.
#[derive(Debug)]
pub(super) enum Literal<'a> {
    Int(&'a str),
    Float(&'a str),
    Text(String),
}

/// Reads a text from front to back.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

fn starts_identifier(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

/// Whether a name needs no quotes.
pub(super) fn is_identifier(s: &str) -> bool {
    s.bytes().next().is_some_and(starts_identifier) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `inf`, `infinity` or `nan`, in any case.
pub(super) fn is_float_word(s: &str) -> bool {
    ["inf", "infinity", "nan"].iter().any(|w| s.eq_ignore_ascii_case(w))
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The next byte that is neither white space nor comment.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip();
        self.rest().bytes().next()
    }

    /// Whether everything is read.
    pub fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Reads `token` if it is next.
    pub fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Reads `token`, which must be next.
    pub fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(format!("expected \"{token}\""))) }
    }

    /// The identifier that is next, not read.
    pub fn peek_identifier(&mut self) -> Option<&'a str> {
        self.skip();
        let rest = self.rest();
        if !rest.bytes().next().is_some_and(starts_identifier) {
            return None;
        }
        let end = rest.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_');
        Some(&rest[..end.unwrap_or(rest.len())])
    }

    /// Reads an identifier.
    pub fn identifier(&mut self, what: &str) -> Result<&'a str> {
        let id = self.peek_identifier().ok_or_else(|| self.error(format!("expected {what}")))?;
        self.at += id.len();
        Ok(id)
    }

    /// Reads a name: an identifier or a quoted text; `None` where neither is next.
    pub fn optional_name(&mut self) -> Result<Option<String>> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b) if starts_identifier(b) => self.identifier("a name").map(|s| Some(s.to_string())),
            _ => Ok(None),
        }
    }

    /// Reads a name.
    pub fn name(&mut self, what: &str) -> Result<String> {
        self.optional_name()?.ok_or_else(|| self.error(format!("expected {what}")))
    }

    /// Reads a quoted text; a backslash makes the next character a plain one.
    pub fn string(&mut self) -> Result<String> {
        self.skip();
        let start = self.at;
        let mut chars = self.rest().char_indices();
        if !matches!(chars.next(), Some((_, '"'))) {
            return Err(self.error("expected a quoted text"));
        }
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    return Ok(out);
                }
                '\\' => out.extend(chars.next().map(|(_, c)| c)),
                c => out.push(c),
            }
        }
        Err(self.error("this quoted text has no end"))
    }

    /// Reads a number or a quoted text.
    pub fn literal(&mut self) -> Result<Literal<'a>> {
        if self.peek() == Some(b'"') {
            return self.string().map(Literal::Text);
        }
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let word = rest[sign..].bytes().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len() - sign);
        if is_float_word(&rest[sign..sign + word]) {
            self.at += sign + word;
            return Ok(Literal::Float(&rest[..sign + word]));
        }
        let (mut end, mut float) = (sign, false);
        for b in rest[sign..].bytes() {
            let after_exponent = matches!(rest.as_bytes().get(end.wrapping_sub(1)), Some(b'e' | b'E'));
            match b {
                b'0'..=b'9' => {}
                b'.' | b'e' | b'E' => float = true,
                b'+' | b'-' if after_exponent => {}
                _ => break,
            }
            end += 1;
        }
        let token = &rest[..end];
        if !token[sign..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("expected a number or a quoted text"));
        }
        self.at += end;
        Ok(if float { Literal::Float(token) } else { Literal::Int(token) })
    }

    /// Reads an integer.
    pub fn int<T: std::str::FromStr>(&mut self) -> Result<T> {
        self.skip();
        let start = self.at;
        let parsed = match self.literal() {
            Ok(Literal::Int(s)) => s.parse().ok(),
            _ => None,
        };
        parsed.ok_or_else(|| self.error_at(start, "expected an integer in the range of its type"))
    }

    /// Reads a real number. An overflow to infinity is an error.
    pub fn real<T: std::str::FromStr + Copy + Into<f64>>(&mut self) -> Result<T> {
        self.skip();
        let start = self.at;
        let parsed = match self.literal() {
            Ok(Literal::Int(s) | Literal::Float(s)) => real(s),
            _ => None,
        };
        parsed.ok_or_else(|| self.error_at(start, "expected a number in the range of its type"))
    }

    /// Reads items separated by commas up to `close`; there may be none.
    pub fn list(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.eat(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.eat(",") {
                return self.expect(close);
            }
        }
    }

    /// Runs `inner` one level deeper.
    pub fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let out = inner(self);
        self.depth -= 1;
        out
    }

    /// An error at the next token.
    pub fn error(&mut self, what: impl std::fmt::Display) -> Error {
        self.skip();
        self.error_at(self.at, what)
    }

    /// Where the next token begins, for [`Cursor::error_at`].
    pub fn position(&mut self) -> usize {
        self.skip();
        self.at
    }

    /// An error at a position: line and column, counted from 1, and what is there.
    pub fn error_at(&self, at: usize, what: impl std::fmt::Display) -> Error {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let found: String = self.text[at..].chars().take_while(|&c| c != '\n').take(20).collect();
        let found = if found.is_empty() { "the end of the line".into() } else { format!("{:?}", found.trim_end()) };
        Error::invalid(format!("line {line}, column {column}: {what}, found {found}"))
    }
}

/// The number that `s` spells; `None` where it is malformed or too large.
pub(super) fn real<T: std::str::FromStr + Copy + Into<f64>>(s: &str) -> Option<T> {
    let x: T = s.parse().ok()?;
    let overflow = x.into().is_infinite() && !is_float_word(s.trim_start_matches('-'));
    (!overflow).then_some(x)
}
