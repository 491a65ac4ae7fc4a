//! How large functions grow, known before anything is copied.

use crate::error::{Error, Result};
use crate::ir::OpId;
use std::collections::{HashMap, HashSet};

/// What a graph holds, bodies included.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) nodes: usize,
    /// Functions that it calls, once for each call.
    pub(super) calls: Vec<OpId>,
}

impl Contents {
    /// Adds to `found` the functions that were not seen before.
    pub(super) fn add_new_to(&self, found: &mut Vec<OpId>, seen: &mut HashSet<OpId>) {
        found.extend(self.calls.iter().filter(|op| seen.insert((*op).clone())).cloned());
    }
}

/// Checks that no function calls itself, and that `main` has at most `limit` nodes when all is inlined.
///
/// # Errors
/// The function that calls itself; that there are too many nodes.
pub(super) fn check(main: &Contents, functions: &HashMap<OpId, Contents>, limit: usize) -> Result<()> {
    let mut sizes: HashMap<&OpId, usize> = HashMap::new();
    // Functions that are being sized, each called by the one below it, with the place where its calls go on.
    let mut stack: Vec<(&OpId, usize)> = vec![];
    let mut open: HashSet<&OpId> = HashSet::new();
    for root in &main.calls {
        stack.push((root, 0));
        while let Some((op, at)) = stack.last_mut() {
            let Some(contents) = functions.get(*op).filter(|_| !sizes.contains_key(*op)) else {
                stack.pop();
                continue;
            };
            open.insert(*op);
            let Some(next) = contents.calls.get(*at) else {
                let (op, size) = (*op, total(contents, &sizes));
                open.remove(op);
                sizes.insert(op, size);
                continue;
            };
            *at += 1;
            if open.contains(next) {
                return Err(Error::invalid(format!("function {next} calls itself")));
            }
            stack.push((next, 0));
        }
    }
    match total(main, &sizes) {
        n if n <= limit => Ok(()),
        _ => Err(Error::unsupported(format!("functions that grow to more than {limit} nodes"))),
    }
}

fn total(contents: &Contents, sizes: &HashMap<&OpId, usize>) -> usize {
    let sized = contents.calls.iter().filter_map(|op| sizes.get(op));
    sized.fold(contents.nodes, |sum, &n| sum.saturating_add(n))
}
