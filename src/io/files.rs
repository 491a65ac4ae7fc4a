//! Loading and saving model files.

use super::external::{load_external, map_file};
use super::{decode_model, model_to_proto};
use crate::error::{Context, Error, Result};
use crate::ir::{Model, TensorData};
use crate::proto;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Loads a model: maps the file, decodes it (weights alias the map), maps its external data, verifies it.
///
/// # Errors
/// One line that names the file: unreadable, not ONNX, invalid, external data missing or outside the folder.
pub fn load(path: &Path) -> Result<Model> {
    let place = || path.display().to_string();
    let bytes = map_file(path)?;
    let mut model = decode_model(bytes).context(place)?;
    load_external(&mut model, parent(path)).context(place)?;
    model.verify().context(place)?;
    Ok(model)
}

/// Saves a model atomically: writes a temporary file beside the target, syncs it, renames it. A failure leaves neither
/// a half-written file nor a changed target. Tensors that were external stay external, in `<file name>.data` beside the
/// target, written first and in the same way.
///
/// # Errors
/// An unwritable target, named.
pub fn save(model: &Model, path: &Path) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let mut message = model_to_proto(model)?;
    message.encode_check().context(place)?;
    let data_file = move_external(&mut message, model, path).context(place)?;
    let encoded = message.encode_to_vec();
    let model_file = write_temporary(path, |w| Ok(w.write_all(&encoded)?)).context(place)?;
    if let Some((file, target)) = data_file {
        persist(file, &target).context(place)?;
    }
    persist(model_file, path).context(place)
}

/// Writes any file atomically, as [`save`] does.
///
/// # Errors
/// An unwritable target, named.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    write_with(path, |w| Ok(w.write_all(contents)?))
}

/// Writes a file atomically with whatever `fill` writes.
pub(super) fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let file = write_temporary(path, fill).context(place)?;
    persist(file, path).context(place)
}

fn write_temporary(target: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<NamedTempFile> {
    if target.is_dir() {
        return Err(Error::usage("it is a folder"));
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as for any new file
    let mut file = builder.prefix(".sardonyx-").tempfile_in(parent(target))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    Ok(file)
}

fn persist(file: NamedTempFile, target: &Path) -> Result<()> {
    file.persist(target).map_err(|e| Error::Io(e.error))?;
    // The rename itself must survive a power cut; a folder that cannot be synced is no reason to fail.
    if let Ok(folder) = std::fs::File::open(parent(target)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

trait EncodeCheck {
    fn encode_check(&self) -> Result<()>;
}

impl EncodeCheck for proto::ModelProto {
    /// Protobuf messages end at 2 GiB.
    fn encode_check(&self) -> Result<()> {
        let size = self.encoded_len();
        if size >= 1 << 31 {
            return Err(Error::unsupported(format!("a model of {size} bytes in one file; protobuf ends at 2 GiB")));
        }
        Ok(())
    }
}

/// Streams the data of external tensors into a new file for `target`, and points the message's entries at it.
fn move_external(
    message: &mut proto::ModelProto,
    model: &Model,
    target: &Path,
) -> Result<Option<(NamedTempFile, PathBuf)>> {
    let mut pieces = vec![];
    for v in model.graph.values() {
        let value = model.graph.value(v);
        if let Some(TensorData::External(e)) = value.init.as_ref().map(|t| &t.data) {
            let bytes = e.bytes.clone().ok_or_else(|| Error::invalid("external data are not loaded"))?;
            pieces.push((value.name.clone(), bytes));
        }
    }
    if pieces.is_empty() {
        return Ok(None);
    }
    let stem = target.file_name().ok_or_else(|| Error::usage("it has no file name"))?;
    let location = format!("{}.data", stem.to_string_lossy());
    let data_path = parent(target).join(&location);
    let mut entries = std::collections::HashMap::new();
    let file = write_temporary(&data_path, |w| {
        let mut offset = 0usize;
        for (name, bytes) in &pieces {
            // Page alignment, so that readers can map each tensor on its own (specification: ExternalData).
            let padding = offset.next_multiple_of(4096) - offset;
            w.write_all(&[0u8; 4096][..padding])?;
            offset += padding;
            w.write_all(bytes)?;
            entries.insert(name.clone(), (offset, bytes.len()));
            offset += bytes.len();
        }
        Ok(())
    })?;
    let graph = message.graph.as_mut().ok_or_else(|| Error::internal("a message without a graph"))?;
    for t in &mut graph.initializer {
        let Some((offset, length)) = entries.get(t.name()) else { continue };
        let entry =
            |key: &str, value: String| proto::StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        t.external_data = vec![
            entry("location", location.clone()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
    }
    Ok(Some((file, data_path)))
}
