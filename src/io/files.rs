//! Loading and saving model files.

use super::external::{load_external, map_file};
use super::relocate::relocated;
use super::{decode_model, model_to_proto};
use crate::error::{Context, Error, Result};
use crate::ir::Model;
use crate::proto;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::Path;
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
/// a half-written file nor a changed target. Initializers that were external stay external, in `<file name>.data` beside
/// the target, written in the same way.
///
/// # Errors
/// An unwritable target, named.
pub fn save(model: &Model, path: &Path) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::usage("it has no file name")).context(place)?;
    let location = format!("{}.data", name.to_string_lossy());
    let relocated = relocated(model, &location).context(place)?;
    let message = model_to_proto(relocated.as_ref().map_or(model, |(copy, _)| copy)).context(place)?;
    message.encode_check().context(place)?;
    let data_path = parent(path).join(&location);
    let layout = relocated.as_ref().map(|(_, layout)| layout).filter(|l| !l.is_empty());
    let data_file = layout.map(|l| write_temporary(&data_path, |w| l.write(w))).transpose().context(place)?;
    let model_file = write_temporary(path, |w| Ok(w.write_all(&message.encode_to_vec())?)).context(place)?;
    let Some(data_file) = data_file else { return persist(model_file, path).context(place) };
    let is_new = !data_path.exists();
    persist(data_file, &data_path).context(place)?;
    persist(model_file, path).context(place).inspect_err(|_| {
        if is_new {
            let _ = std::fs::remove_file(&data_path);
        }
    })
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
    if std::fs::metadata(target).is_ok_and(|m| !m.is_file()) {
        return Err(Error::usage(
            "it is a device or a pipe; results are renamed into place, which needs a regular file",
        ));
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
