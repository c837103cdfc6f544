//! A certificate for this machine, made for one test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// For `localhost` and `127.0.0.1`, signed by its own key. Gone with the test.
pub struct Certificate {
    pub folder: PathBuf,
}

impl Certificate {
    pub fn make() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let this = Self { folder };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-keyout")
            .arg(this.key())
            .arg("-out")
            .arg(this.cert())
            .output()
            .expect("openssl is installed: scripts/test does so");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let both = [this.cert(), this.key()].map(|path| std::fs::read(path).expect("a file")).concat();
        std::fs::write(this.both(), both).expect("written");
        this
    }

    pub fn cert(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// One file with the certificate and its key.
    pub fn both(&self) -> PathBuf {
        self.folder.join("both.pem")
    }

    /// The hub's settings for it.
    pub fn settings(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        ["--tls-cert".into(), text(self.cert()), "--tls-key".into(), text(self.key())]
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
