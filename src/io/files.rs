//! Loading and saving model files.

use super::external::load_external;
use super::mapped::map_file;
use super::relocate::{Layout, Where, relocated};
use super::sink::Sink;
use super::{ExternalData, SaveOptions, decode_model, model_to_proto};
use crate::error::{Context, Error, Result};
use crate::ir::Model;
use crate::proto;
use prost::Message;
use std::io::Write;
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

/// Protobuf messages end here.
const PROTOBUF_LIMIT: usize = 1 << 31;

/// [`save_with`] the usual options: what was external stays external.
///
/// # Errors
/// As [`save_with`].
pub fn save(model: &Model, path: &Path) -> Result<()> {
    save_with(model, path, &SaveOptions::default())
}

/// Saves a model atomically: writes a temporary file beside the target, syncs it, renames it. A failure leaves neither
/// a half-written file nor a changed target. External data go into `<file name>.data` beside the target, written in the
/// same way; weights that alias a mapped file are copied from that file by the system, so their pages are not read.
///
/// A model may be saved over the files that it was loaded from: what is mapped stays as it is. With external data two
/// files are renamed, the data first, so a power cut exactly between the two leaves the new data beside the old model. A
/// data file that the saved model does not need is left alone: it may be another model's too.
///
/// # Errors
/// An unwritable target, named; a model that does not fit in one file, where the options want one.
pub fn save_with(model: &Model, path: &Path, options: &SaveOptions) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::usage("it has no file name")).context(place)?;
    let location = format!("{}.data", name.to_string_lossy());
    let (message, layout) = placed(model, &location, options).context(place)?;
    let data_path = parent(path).join(&location);
    let layout = Some(layout).filter(|l| !l.is_empty());
    let data_file = layout.map(|l| write_temporary(&data_path, |w| l.write(w))).transpose().context(place)?;
    let encode = |w: &mut Sink| message.encode(w).map_err(|e| Error::internal(format!("encoding: {e}")));
    let model_file = write_temporary(path, encode).context(place)?;
    let Some(data_file) = data_file else { return persist(model_file, path).context(place) };
    let is_new = !data_path.exists();
    persist(data_file, &data_path).context(place)?;
    persist(model_file, path).context(place).inspect_err(|_| {
        if is_new {
            let _ = std::fs::remove_file(&data_path);
        }
    })
}

/// The model's message, and what goes into its data file.
fn placed(model: &Model, location: &str, options: &SaveOptions) -> Result<(proto::ModelProto, Layout)> {
    let place = |rule: Where| -> Result<_> {
        let (copy, layout) = relocated(model, location, rule)?;
        Ok((model_to_proto(&copy)?, layout))
    };
    let from_threshold = Where::From(options.threshold);
    let mut found = place(match options.external {
        ExternalData::Auto => Where::AsLoaded,
        ExternalData::Always => from_threshold,
        ExternalData::Never => Where::Inline,
    })?;
    let fits = |message: &proto::ModelProto| message.encoded_len() < PROTOBUF_LIMIT;
    if options.external == ExternalData::Auto && !fits(&found.0) {
        found = place(from_threshold)?;
    }
    if !fits(&found.0) {
        let (size, limit) = (found.0.encoded_len(), "protobuf ends at 2 GiB");
        let advice = if options.external == ExternalData::Never { "; allow external data" } else { "" };
        return Err(Error::unsupported(format!("a model of {size} bytes in one file: {limit}{advice}")));
    }
    Ok(found)
}

/// Whether a file can be written there: to be asked before long work.
///
/// # Errors
/// An unwritable target, named.
pub fn check_writable(path: &Path) -> Result<()> {
    write_temporary(path, |_| Ok(())).map(drop).context(|| format!("cannot write {}", path.display()))
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
    let file = write_temporary(path, |w| fill(w)).context(place)?;
    persist(file, path).context(place)
}

fn write_temporary(target: &Path, fill: impl FnOnce(&mut Sink) -> Result<()>) -> Result<NamedTempFile> {
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
    let mut sink = Sink::new(file.as_file_mut());
    fill(&mut sink)?;
    sink.finish()?;
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
