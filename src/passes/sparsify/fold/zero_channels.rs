//! Channels that nobody takes.

use crate::analysis::axis_groups::{Group, Place, Role, axis_groups};
use crate::error::Result;
use crate::ir::{Graph, Model};
use crate::passes::prune::{Cut, Slice};
use crate::passes::{Effect, Outcome, Pass, PassContext};
use std::collections::HashSet;

/// Removes channels of which every layer that takes them has nothing but zeros for them, with everything that they are
/// coupled to.
///
/// When: pruning could remove them, and some layer does take them. One channel of each group stays. Why it is equal: pruning
/// a channel equals zeros in the weights that take it, and those are there already.
pub struct EliminateZeroChannels;

impl Pass for EliminateZeroChannels {
    fn name(&self) -> &'static str {
        "eliminate_zero_channels"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let groups = axis_groups(model, false)?;
        let taken: HashSet<Place> = groups.tied.iter().filter(|t| t.role == Role::Takes).map(|t| t.place).collect();
        let mut gone = vec![];
        for (k, group) in groups.groups.iter().enumerate().filter(|(_, g)| g.barrier.is_none()) {
            let mut zero = zero_classes(&model.graph, group, &taken)?;
            if zero.len() == group.classes.len() {
                zero.remove(0);
            }
            gone.extend(zero.into_iter().map(|c| (k, c)));
        }
        let changes = gone.len();
        if changes == 0 || !cx.burn(self.name()) {
            return Ok(Outcome::default());
        }
        let cut = Cut::without(&model.graph, &groups, gone);
        let sliced = Slice { cut }.run(model, cx)?;
        Ok(Outcome { changes, ..sliced })
    }
}

/// Classes for which every weight that takes them is zero; none where no weight does.
fn zero_classes(graph: &Graph, group: &Group, taken: &HashSet<Place>) -> Result<Vec<usize>> {
    let mut zero = vec![true; group.classes.len()];
    let mut any = false;
    for (at, place) in group.axes.iter().enumerate().filter(|(_, p)| taken.contains(p)) {
        let Some(t) = graph.constant(place.value) else { return Ok(vec![]) };
        any = true;
        let (size, inner) = (t.dims[place.axis], t.dims[place.axis + 1..].iter().product::<usize>().max(1));
        let mut used = vec![false; size];
        for (k, x) in t.to_f32()?.into_iter().enumerate() {
            used[k / inner % size] |= x != 0.0;
        }
        for (zero, class) in zero.iter_mut().zip(&group.classes) {
            *zero &= class.members[at].iter().all(|&k| !used[k as usize]);
        }
    }
    Ok(if any { (0..zero.len()).filter(|&c| zero[c]).collect() } else { vec![] })
}
