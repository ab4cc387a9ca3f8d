//! A server between a test and a real store (or instead of one) that answers as broken ones do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What to do with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// This status, S3 error code and message.
    Error(u16, &'static str),
    /// This status with no body at all.
    Bare(u16),
    /// This status, these further header lines (each ended by `\r\n`) and this body.
    Full(u16, &'static str, String),
    /// Announces so many bytes, sends a few, and closes.
    TruncatedBody,
    /// Nothing, for as long as the client waits.
    Silence,
    /// Does it on the real server, and closes without an answer.
    StoreAndHangUp,
    /// Passes it on without `If-None-Match`.
    IgnoreCondition,
    /// Passes it on.
    PassOn,
}

/// The broken server; it stops with the test's process.
pub(crate) struct BrokenS3 {
    pub(crate) endpoint: String,
    pub(crate) requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl BrokenS3 {
    /// Answers each request as `decide` says from its first line (`PUT /bucket/key?… HTTP/1.1`) and number.
    pub(crate) fn start(
        upstream: Option<&str>,
        decide: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.map(|u| u.trim_start_matches("http://").to_owned());
        let requests = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (counter, seen, decide) = (Arc::clone(&requests), Arc::clone(&heads), Arc::new(decide));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, counter, seen, decide) =
                    (upstream.clone(), Arc::clone(&counter), Arc::clone(&seen), Arc::clone(&decide));
                std::thread::spawn(move || serve(client, upstream.as_deref(), &counter, &seen, &*decide));
            }
        });
        Self { endpoint, requests, heads }
    }

    /// How many requests came since the last call.
    pub(crate) fn count(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// The first lines and headers of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: Option<&str>,
    counter: &AtomicUsize,
    seen: &Mutex<Vec<String>>,
    decide: &dyn Fn(&str, usize) -> Answer,
) {
    // One request to a connection: every answer closes it.
    let Some((head, body)) = request(&mut client) else { return };
    let first = head.lines().next().unwrap_or_default().to_owned();
    let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
    seen.lock().unwrap().push(head.clone());
    let pass_on = |head: &str| {
        let mut server = TcpStream::connect(upstream.expect("a server to pass on to")).unwrap();
        server.write_all(head.as_bytes()).unwrap();
        server.write_all(&body).unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        answer
    };
    let answer = match decide(&first, number) {
        Answer::Error(status, code) => {
            let xml = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as ordered</Message></Error>"
            );
            let body = if first.starts_with("HEAD") { "" } else { &xml };
            format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                xml.len()
            )
            .into_bytes()
        }
        Answer::Bare(status) => {
            format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
        }
        Answer::Full(status, headers, body) => format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
        Answer::TruncatedBody => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: \"x\"\r\nconnection: close\r\n\r\nonly this"
                .to_vec()
        }
        Answer::Silence => {
            std::thread::sleep(std::time::Duration::from_secs(60));
            return;
        }
        Answer::StoreAndHangUp => {
            pass_on(&head);
            return;
        }
        Answer::IgnoreCondition => {
            let kept: Vec<&str> = head
                .split("\r\n")
                .filter(|l| !l.to_ascii_lowercase().starts_with("if-none-match:"))
                .collect();
            pass_on(&kept.join("\r\n"))
        }
        Answer::PassOn => pass_on(&head),
    };
    drop(client.write_all(&answer));
}

/// Reads one request: its head, changed to close the connection, and its body.
fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match client.read(&mut chunk) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let length = head
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().to_owned()))
        .map_or(0, |v| v.parse::<usize>().unwrap());
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        match client.read(&mut chunk) {
            Ok(n) if n > 0 => body.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    let kept: Vec<&str> = head
        .trim_end()
        .split("\r\n")
        .filter(|l| !l.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    Some((format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n")), body))
}
