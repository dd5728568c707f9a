//! The kernel's pools of huge pages: grown, and shrunk again.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Pages that were added to a pool; removed again on drop.
///
/// Others may change the same pool meanwhile, so the number that was added is removed, and the
/// earlier number is not restored.
#[derive(Debug)]
pub struct Grown {
    pool: PathBuf,
    added: u64,
}

impl Grown {
    /// Adds up to `wanted` pages of `page` bytes to their pool.
    ///
    /// # Errors
    /// The machine has no such pool, or this process may not change it.
    pub fn new(page: u64, wanted: u64) -> io::Result<Self> {
        let name = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", page >> 10);
        let pool = PathBuf::from(name);
        let before = read(&pool)?;
        // A kernel that cannot allocate a single page may return an error: then none are added.
        let asked = fs::write(&pool, (before + wanted).to_string());
        let added = read(&pool)?.saturating_sub(before);
        match asked {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(Self { pool, added }),
        }
    }

    /// The number of pages added: fewer than wanted if memory is scattered.
    pub fn added(&self) -> u64 {
        self.added
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        let given_back = read(&self.pool)
            .and_then(|now| fs::write(&self.pool, now.saturating_sub(self.added).to_string()));
        if let Err(error) = given_back {
            eprintln!("{} pages remain in {}: {error}", self.added, self.pool.display());
        }
    }
}

fn read(pool: &PathBuf) -> io::Result<u64> {
    fs::read_to_string(pool)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}
