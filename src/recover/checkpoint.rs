//! Checkpoints of a run: everything that it takes to go on as if nothing had happened.

use super::Parameters;
use super::distill::Point;
use super::distill_options::DistillOptions;
use crate::error::{Context, Error, Result};
use crate::io::{read_npz, write_npz};
use crate::ir::{DType, Tensor};
use crate::math::Array;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Where a run is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub step: usize,
    /// Seconds that they took, and what came before them.
    pub seconds: f64,
    /// Seconds that came before the first step.
    pub began: f64,
    /// The largest learning rate.
    pub rate: f64,
    /// Of the random numbers.
    pub random: u64,
    /// Samples that this pass over the data has still to take, last first.
    pub queue: Vec<usize>,
    /// Share of the run at which the next validation is due.
    pub next_validation: f64,
    /// Training losses since the last one.
    pub losses: Vec<f64>,
    /// Validations since the best one.
    pub since_best: usize,
    /// Validation loss before the first step.
    pub before: f64,
    /// The best one.
    pub best: f64,
    /// Steps after which it was found.
    pub best_step: usize,
    /// All of them.
    pub curve: Vec<Point>,
}

/// What a file holds.
pub(super) struct Checkpoint {
    pub state: State,
    pub parameters: Parameters<f32>,
    pub best: Parameters<f32>,
    pub moments: [Vec<Vec<f32>>; 2],
}

/// What is said of the run in the file.
#[derive(Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    state: State,
}

const HEADER: &str = "state";
const PARTS: [&str; 4] = ["value", "best", "first", "second"];

/// Tells runs apart: the student as it came, what the teacher makes of the data, and every option but how long to train.
///
/// # Errors
/// None in practice.
pub(super) fn fingerprint(
    student: &Parameters<f32>,
    teacher: &[Vec<Array<f32>>],
    options: &DistillOptions,
) -> Result<String> {
    let same = DistillOptions { epochs: None, minutes: None, patience: 1, resume: None, ..options.clone() };
    let options = serde_json::to_string(&same).map_err(|e| Error::internal(format!("options: {e}")))?;
    let names = student.list().iter().flat_map(|p| p.name.bytes());
    let numbers = student.values().iter().chain(teacher.iter().flatten()).flat_map(|a| a.data());
    let bytes = options.bytes().chain(names).chain(numbers.flat_map(|x| x.to_le_bytes()));
    // FNV-1a.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    Ok(format!("{hash:016x}"))
}

/// Writes a checkpoint, atomically. `parameters`: as they are, and the best so far.
///
/// # Errors
/// An unwritable target.
pub(super) fn write(
    path: &Path,
    fingerprint: &str,
    state: &State,
    parameters: [&Parameters<f32>; 2],
    moments: [&[Vec<f32>]; 2],
) -> Result<()> {
    let header = Header { fingerprint: fingerprint.to_string(), state: state.clone() };
    let header = serde_json::to_vec(&header).map_err(|e| Error::internal(format!("checkpoint: {e}")))?;
    let mut arrays = vec![(HEADER.to_string(), Tensor::raw(DType::U8, &[header.len()], header))];
    for (part, all) in PARTS.iter().zip(parameters) {
        let named = all.list().iter().zip(all.values());
        arrays.extend(named.map(|(p, a)| (format!("{part}/{}", p.name), Tensor::from_f32(a.dims(), a.data()))));
    }
    for (part, all) in PARTS[2..].iter().zip(moments) {
        let named = parameters[0].list().iter().zip(all);
        arrays.extend(named.map(|(p, m)| (format!("{part}/{}", p.name), Tensor::from_f32(&[m.len()], m))));
    }
    write_npz(path, &arrays).context(|| "checkpoint")
}

impl Checkpoint {
    /// Reads the checkpoint of a run with this fingerprint.
    ///
    /// # Errors
    /// A file that is no checkpoint, or one of another run.
    pub fn read(path: &Path, fingerprint: &str, like: &Parameters<f32>) -> Result<Self> {
        Self::parse(read_npz(path)?, fingerprint, like).context(|| path.display().to_string())
    }

    fn parse(arrays: Vec<(String, Tensor)>, fingerprint: &str, like: &Parameters<f32>) -> Result<Self> {
        let arrays: HashMap<String, Tensor> = arrays.into_iter().collect();
        let damaged = || Error::data("not a checkpoint of distillation, or a damaged one");
        let header = arrays.get(HEADER).ok_or_else(damaged)?.bytes()?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| damaged())?;
        if header.fingerprint != fingerprint {
            return Err(Error::usage(
                "the checkpoint is of another run: another student, teacher, data or option; name another file",
            ));
        }
        let read = |part: &str| -> Result<Vec<Vec<f32>>> {
            let one = |p: &super::Parameter| arrays.get(&format!("{part}/{}", p.name)).ok_or_else(damaged)?.to_f32();
            like.list().iter().map(one).collect()
        };
        let parameters = |part: &str| -> Result<Parameters<f32>> {
            let mut all = like.clone();
            for (a, data) in all.values_mut().iter_mut().zip(read(part)?) {
                if a.len() != data.len() {
                    return Err(damaged());
                }
                *a = Array::new(a.dims(), data);
            }
            Ok(all)
        };
        let moments = [read(PARTS[2])?, read(PARTS[3])?];
        let fits = |m: &[Vec<f32>]| m.iter().zip(like.values()).all(|(m, a)| m.is_empty() || m.len() == a.len());
        if !moments.iter().all(|m| fits(m)) {
            return Err(damaged());
        }
        Ok(Self { state: header.state, parameters: parameters(PARTS[0])?, best: parameters(PARTS[1])?, moments })
    }
}
