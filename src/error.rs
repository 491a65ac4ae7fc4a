//! The one error type of the library.
//!
//! Every message is one line that a person can act on: what was wrong, where (file, node, op, pass), and where it is
//! known what to do about it. Context is added from the inside out with [`Context::context`], so the outermost words
//! come first: `model.onnx: node "conv1" (Conv): weight has rank 3, expected 4`.

use std::fmt::Display;

/// What can go wrong anywhere in the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing a file failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The bytes are not a protobuf message of the expected kind.
    #[error("not a readable ONNX protobuf: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The model breaks a rule of the ONNX specification.
    #[error("invalid model: {0}")]
    Invalid(String),
    /// The model, or the request, needs something that is not implemented.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// Calibration or validation data do not fit the model.
    #[error("data: {0}")]
    Data(String),
    /// An option or a recipe asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// Execution in tract failed.
    #[error("tract: {0}")]
    Execution(String),
    /// An invariant of Sardonyx itself broke. Never the user's fault.
    #[error("internal error (please report it): {0}")]
    Internal(String),
    /// Another error, and where it happened.
    #[error("{context}: {source}")]
    Context {
        /// Where: a file, a node, a pass.
        context: String,
        /// What.
        #[source]
        source: Box<Error>,
    },
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Invalid`] from anything printable.
    pub fn invalid(message: impl Display) -> Self {
        Self::Invalid(message.to_string())
    }

    /// An [`Error::Unsupported`] from anything printable.
    pub fn unsupported(message: impl Display) -> Self {
        Self::Unsupported(message.to_string())
    }

    /// An [`Error::Data`] from anything printable.
    pub fn data(message: impl Display) -> Self {
        Self::Data(message.to_string())
    }

    /// An [`Error::Usage`] from anything printable.
    pub fn usage(message: impl Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// An [`Error::Internal`] from anything printable.
    pub fn internal(message: impl Display) -> Self {
        Self::Internal(message.to_string())
    }
}

/// Adds the place to an error on its way out.
pub trait Context<T> {
    /// Wraps an error in `place()`, which is evaluated only on failure.
    fn context<D: Display>(self, place: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: Display>(self, place: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::Context { context: place().to_string(), source: Box::new(e.into()) })
    }
}
