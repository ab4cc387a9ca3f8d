//! Real object stores: a Ceph radosgw and a moto, each started once and shared by all test processes.
//!
//! A test holds a shared lock on the server's lease while it lives; `tests/tools/stop-when-idle.sh` stops a
//! server whose lease nobody has held for ten seconds. A server that is missing on this machine fails the
//! test and says what to install.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pitr::storage::{RetryStorage, S3Options, S3Storage};

/// Which server a test wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Create-only holds; every digest is checked.
    Ceph,
    /// Conditions right, no integrity, in memory.
    Moto,
}

/// A running server, kept by this lease.
#[derive(Debug)]
pub(crate) struct S3Server {
    pub(crate) endpoint: String,
    pub(crate) keys: (String, String),
    _lease: File,
}

impl S3Server {
    /// The server of this kind, started if no other test has.
    pub(crate) fn start(kind: Kind) -> Self {
        let mut hasher = DefaultHasher::new();
        env!("CARGO_TARGET_TMPDIR").hash(&mut hasher);
        let name = match kind {
            Kind::Ceph => "ceph",
            Kind::Moto => "moto",
        };
        // Short, because Ceph puts sockets in it; one for each target directory.
        let dir = PathBuf::from(format!("/tmp/pitr-test-{name}-{:08x}", hasher.finish() & 0xffff_ffff));
        let beside = |end: &str| PathBuf::from(format!("{}.{end}", dir.display()));
        let open = |path: PathBuf| File::options().create(true).append(true).open(path).expect("a lock file");
        let lease = open(beside("lease"));
        let starting = open(beside("lease.start"));
        starting.lock().unwrap();
        lease.lock_shared().unwrap();
        let known = std::fs::read_to_string(beside("lease.endpoint")).ok();
        let endpoint = known.filter(|e| reachable(e)).unwrap_or_else(|| {
            let endpoint = match kind {
                Kind::Ceph => start_ceph(&dir, &beside("lease")),
                Kind::Moto => start_moto(&dir, &beside("lease")),
            };
            std::fs::write(beside("lease.endpoint"), &endpoint).unwrap();
            endpoint
        });
        starting.unlock().unwrap();
        let keys = match kind {
            Kind::Ceph => ("cephkey".into(), "cephsecretcephsecret".into()),
            Kind::Moto => ("moto".into(), "motosecret".into()),
        };
        Self { endpoint, keys, _lease: lease }
    }

    /// A new bucket's name, made on the server.
    pub(crate) fn bucket(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (std::process::id(), std::time::SystemTime::now(), std::thread::current().id()).hash(&mut hasher);
        let bucket = format!("t{:016x}", hasher.finish());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (key, secret) = &self.keys;
            let config = aws_sdk_s3::Config::builder()
                .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
                .endpoint_url(&self.endpoint)
                .force_path_style(true)
                .retry_config(aws_sdk_s3::config::retry::RetryConfig::standard().with_max_attempts(8))
                .region(aws_sdk_s3::config::Region::new("us-east-1"))
                .credentials_provider(aws_sdk_s3::config::Credentials::new(key, secret, None, None, "test"))
                .build();
            let client = aws_sdk_s3::Client::from_conf(config);
            client.create_bucket().bucket(&bucket).send().await.expect("a new bucket");
        });
        bucket
    }

    /// Options for a bucket on this server.
    pub(crate) fn options(&self, bucket: &str, prefix: &str) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            keys: Some(self.keys.clone()),
            ..S3Options::new(bucket, prefix)
        }
    }

    /// A storage in `bucket` that asks again what the server refuses for a moment, as it does on a loaded machine.
    pub(crate) fn patient(&self, bucket: &str, prefix: &str) -> RetryStorage<S3Storage> {
        RetryStorage::new(S3Storage::new(self.options(bucket, prefix)), std::time::Duration::from_secs(60))
    }

    /// A storage in a new bucket.
    pub(crate) fn storage(&self, prefix: &str) -> S3Storage {
        S3Storage::new(self.options(&self.bucket(), prefix))
    }

    /// What a process needs in its environment to log in.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let (key, secret) = self.keys.clone();
        vec![
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1".into()),
            ("PITR_REPOSITORY_ENDPOINT", self.endpoint.clone()),
        ]
    }
}

fn reachable(endpoint: &str) -> bool {
    TcpStream::connect(endpoint.trim_start_matches("http://")).is_ok()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tool(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// Starts a process that outlives the test that happened to start it, and never holds its output open.
fn run_detached(program: &Path, arguments: &[&OsStr], log: Stdio) {
    let status = Command::new("setsid")
        .arg("--fork")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .status()
        .unwrap();
    assert!(status.success(), "{} did not start", program.display());
}

fn start_ceph(dir: &Path, lease: &Path) -> String {
    for program in ["radosgw", "ceph-mon", "ceph-osd", "ceph", "curl"] {
        super::program(program);
    }
    let log = dir.with_extension("log");
    // A port that was free may be another server's a moment later, and on a busy machine one of its four processes may
    // not be ready when the next needs it: what each try said is kept.
    let started = (1..=3).find_map(|number| {
        drop(std::fs::remove_dir_all(dir));
        let (port, mon) = (free_port(), free_port());
        let said =
            if number == 1 { File::create(&log) } else { File::options().append(true).open(&log) }.unwrap();
        let script = |arguments: &[&OsStr]| {
            let mut command = Command::new("setsid");
            command.arg("--wait").arg(tool("start-ceph-rgw.sh")).args(arguments).stdin(Stdio::null());
            command
                .stdout(said.try_clone().unwrap())
                .stderr(said.try_clone().unwrap())
                .status()
                .unwrap()
                .success()
        };
        let (port_text, mon_text) = (port.to_string(), mon.to_string());
        if script(&[dir.as_os_str(), OsStr::new(&port_text), OsStr::new(&mon_text)]) {
            return Some(port);
        }
        script(&[OsStr::new("--stop"), dir.as_os_str()]);
        None
    });
    let Some(port) = started else {
        panic!("Ceph did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    };
    let stop = tool("start-ceph-rgw.sh");
    let arguments = [lease.as_os_str(), stop.as_os_str(), OsStr::new("--stop"), dir.as_os_str()];
    run_detached(&tool("stop-when-idle.sh"), &arguments, Stdio::null());
    format!("http://127.0.0.1:{port}")
}

fn start_moto(dir: &Path, lease: &Path) -> String {
    let port = free_port();
    let log = File::create(dir.with_extension("log")).unwrap();
    let moto = super::program("moto_server");
    let pid_file = dir.with_extension("pid");
    drop(std::fs::remove_file(&pid_file));
    let script = format!("echo $$ > {}; exec {} -H 127.0.0.1 -p {port}", pid_file.display(), moto.display());
    run_detached(Path::new("sh"), &[OsStr::new("-c"), OsStr::new(&script)], log.into());
    super::wait_until("moto has a process", 10, || {
        std::fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let arguments = [lease.as_os_str(), OsStr::new("kill"), OsStr::new(pid.trim())];
    run_detached(&tool("stop-when-idle.sh"), &arguments, Stdio::null());
    let endpoint = format!("http://127.0.0.1:{port}");
    super::wait_until("moto answers", 30, || reachable(&endpoint));
    endpoint
}
