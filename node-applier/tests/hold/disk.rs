//! A disk in memory: the one of a folder syncs, which takes its time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use rulecast_node::store::Disk;

/// Files by name.
#[derive(Clone, Default)]
pub(crate) struct Memory(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    /// Flips a bit in the middle of a file.
    pub(crate) fn damage(&self, file: &str) {
        let files = &mut *self.0.borrow_mut();
        let bytes = files.get_mut(file).expect("the file is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
}

impl Disk for Memory {
    fn path(&self, file: &str) -> PathBuf {
        file.into()
    }
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().get(file).cloned())
    }
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().entry(file.to_owned()).or_default().extend(bytes);
        Ok(())
    }
    fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().insert(file.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn truncate(&mut self, file: &str, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).expect("small files");
        self.0.borrow_mut().entry(file.to_owned()).or_default().truncate(size);
        Ok(())
    }
}
