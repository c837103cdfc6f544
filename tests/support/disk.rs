//! Disks that are full or cannot be written. To mount one needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of the test's own, gone with it.
pub struct Disk {
    pub path: PathBuf,
}

impl Disk {
    pub fn mount(name: &str, size: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        let disk = Self { path };
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    pub fn run(&self, program: &str, args: &[&str]) {
        let status = Command::new(program).args(args).arg(&self.path).status();
        assert!(status.is_ok_and(|status| status.success()), "`{program} {args:?}`; this test needs root");
    }

    /// Takes all the room there is, or so many bytes.
    pub fn fill(&self, most: usize) {
        let mut file = std::fs::File::create(self.path.join("filler")).expect("a file");
        let block = [0; 4096];
        for _ in 0..most / block.len() {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: when the test fails, somebody may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        let _ = std::fs::remove_dir(&self.path);
    }
}
