//! A store behind a certificate of one's own authority.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::ABSENT;
use crate::support::{Pitr, TestDir, wait_until};

/// A moto with TLS, stopped with the test.
struct TlsStore {
    port: u16,
    process: Child,
}

impl TlsStore {
    fn start(dir: &TestDir) -> Self {
        openssl(
            dir.path(),
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        );
        openssl(dir.path(), "req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj /CN=store");
        dir.write("ext", "subjectAltName=IP:127.0.0.1\n");
        openssl(
            dir.path(),
            "x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tls.pem -days 2 -extfile ext",
        );
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string(), "-s"])
            .arg("-c")
            .arg(dir.join("tls.pem"))
            .arg("-k")
            .arg(dir.join("tls.key"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server is missing: pip install 'moto[server]'");
        let store = Self { port, process };
        wait_until("moto answers", 60, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        store
    }
}

impl Drop for TlsStore {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_certificate_of_ones_own_authority_is_trusted_where_it_is_named_and_refused_otherwise() {
    let dir = TestDir::new();
    let store = TlsStore::start(&dir);
    for name in ["ca.pem", "tls.pem"] {
        dir.account().own(dir.join(name));
    }
    let made = Command::new("curl")
        .args(["-sS", "-X", "PUT", "--cacert"])
        .arg(dir.join("ca.pem"))
        .arg(format!("https://127.0.0.1:{}/bucket", store.port))
        .status();
    assert!(made.unwrap().success(), "no bucket");
    let pitr = Pitr::new(&dir)
        .repository("s3://bucket/prod")
        .env("PITR_REPOSITORY_ENDPOINT", format!("https://127.0.0.1:{}", store.port))
        .env("AWS_ACCESS_KEY_ID", "k")
        .env("AWS_SECRET_ACCESS_KEY", "s")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let out = dir.join("out").display().to_string();
    let get = |pitr: &Pitr| {
        let done = pitr.run(["archive-get", ABSENT, &out]);
        done.expect_code(255);
        done.stderr
    };
    let file = |name: &str| dir.join(name).display().to_string();

    // Trusted: it is reached, and it is empty.
    for variable in ["PITR_REPOSITORY_CA_FILE", "AWS_CA_BUNDLE"] {
        let said = get(&pitr.clone().env(variable, file("ca.pem")));
        assert!(said.contains("is empty"), "{variable}: {said}");
    }
    // Not trusted: said at once, for a certificate does not become right by waiting.
    let said = get(&pitr);
    assert!(
        said.contains("certificate") && said.contains("ca-file") && !said.contains("trying again"),
        "{said}"
    );
    // The right authority, another host's name.
    let by_name = pitr
        .clone()
        .env("PITR_REPOSITORY_CA_FILE", file("ca.pem"))
        .env("PITR_REPOSITORY_ENDPOINT", format!("https://localhost:{}", store.port));
    let said = get(&by_name);
    assert!(said.contains("certificate") && !said.contains("trying again"), "{said}");
    // A CA file that is none.
    dir.write("empty.pem", "");
    let said = get(&pitr.clone().env("PITR_REPOSITORY_CA_FILE", file("empty.pem")));
    assert!(said.contains("holds no certificate"), "{said}");
    let said = get(&pitr.clone().env("PITR_REPOSITORY_CA_FILE", file("gone.pem")));
    assert!(said.contains("cannot read the CA file"), "{said}");
    // Plain HTTP to a port that speaks TLS, and the reverse.
    let plain = pitr
        .clone()
        .env("PITR_REPOSITORY_ENDPOINT", format!("http://127.0.0.1:{}", store.port))
        .env("PITR_ARCHIVE_GET_RETRY", "0");
    get(&plain);
}
