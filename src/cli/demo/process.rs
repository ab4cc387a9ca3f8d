//! Child processes: the application that writes, what is fed to a command and read from it, and how one would type it.

use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

/// A client that writes until something stops it.
#[derive(Debug)]
pub(super) struct Application(pub(super) Child);

impl Application {
    /// Its last words; killed, should it still run.
    pub(super) fn end(&mut self) -> String {
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.0.kill());
        drop(self.0.wait());
        let mut said = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            drop(std::io::Read::read_to_string(stderr, &mut said));
        }
        said
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A command that ends early closes its end: what it did not read does not matter then.
pub(super) fn feed(child: &mut Child, input: &str) {
    if let Some(mut stdin) = child.stdin.take() {
        drop(std::io::Write::write_all(&mut stdin, input.as_bytes()));
    }
}

/// Read beside, because a full pipe would stop the command.
pub(super) fn drain(mut from: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// As one would type it.
pub(super) fn typed(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

pub(super) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:=,@+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else if !word.contains(['"', '$', '`', '\\', '!']) {
        format!("\"{word}\"")
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
