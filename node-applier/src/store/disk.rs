//! The few things that are done with files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rulecast_bundle::MAX_CHECKPOINT;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = MAX_CHECKPOINT as u64 + (1 << 20);

/// Files by name. What is written survives a power failure once the call has returned, but for [`Disk::truncate`].
pub trait Disk {
    /// Where a file is, for people.
    fn path(&self, file: &str) -> PathBuf;

    /// The whole file; none when it is not there.
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>>;

    /// Adds to a file's end, and makes the file if it is not there. After a failure any part may have been added.
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Puts a whole file in another's place: after a failure, too, one of the two is there.
    fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file off, and makes an empty one if it is not there. After a power failure the rest may be there again.
    fn truncate(&mut self, file: &str, size: u64) -> io::Result<()>;
}

/// A folder of its own, readable by its owner only.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if it is not there.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        Ok(Self(dir.to_owned()))
    }

    fn open_to_append(&self, file: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(file))
    }
}

impl Disk for Folder {
    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match File::open(self.path(file)).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.open_to_append(file)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path(&format!("{file}.new"));
        let mut written =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        drop(written);
        fs::rename(&new, self.path(file))?;
        File::open(&self.0)?.sync_all()
    }

    fn truncate(&mut self, file: &str, size: u64) -> io::Result<()> {
        self.open_to_append(file)?.set_len(size)
    }
}
