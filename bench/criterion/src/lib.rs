//! What the benches work on, made here: segments of WAL and tar streams as a server writes them.

/// A server's usual page, of a table and of the WAL.
pub const PAGE: usize = 8192;
/// The default segment.
pub const SEGMENT: usize = 16 << 20;
/// Where the segment stands in the log: its number.
pub const NUMBER: u64 = 3;
const START: u64 = NUMBER * SEGMENT as u64;

/// Numbers without a pattern, the same ones each time.
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// From a seed that is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one (xorshift).
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Pages as pgbench's accounts have them: rows of some numbers and 84 blanks, so that they compress about as well.
pub fn pages(count: usize) -> Vec<u8> {
    let mut noise = Noise::new(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(count * PAGE);
    let mut row = 0_u32;
    for _ in 0..count {
        let end = bytes.len() + PAGE;
        bytes.extend(noise.number().to_le_bytes());
        while bytes.len() + 128 <= end {
            row += 1;
            let number = noise.number().to_le_bytes();
            bytes.extend(number.iter().take(4).copied().chain([0; 20]));
            bytes.extend(row.to_le_bytes());
            bytes.extend(number.iter().rev().take(2).copied().chain([0; 2]));
            bytes.extend([b' '; 84]);
        }
        bytes.resize(end, 0);
    }
    bytes
}

/// A segment of PostgreSQL 15 full of records that each change one row, as between checkpoints.
pub fn segment_of_rows() -> Vec<u8> {
    let mut noise = Noise::new(11);
    Segment::filled(|segment| {
        // pgbench's transaction: three updates, an insertion and a commit, of these lengths.
        let block = noise.number() as u32 % 40_000;
        for length in [44, 45, 36, 40] {
            let data: Vec<u8> = (0..length).map(|_| noise.number() as u8).collect();
            segment.record(10, 0x40, &changed(16_384, block, &data));
        }
        let micros = 700_000_000_000_000_u64 + u64::from(block);
        let mut commit = vec![255, 8];
        commit.extend(micros.to_le_bytes());
        segment.record(1, 0, &commit);
    })
}

/// A segment full of images of pages, as behind a checkpoint.
pub fn segment_of_images() -> Vec<u8> {
    let pages = pages(256);
    let mut number = 0;
    Segment::filled(|segment| {
        let page = pages.chunks_exact(PAGE).cycle().nth(number % 256).unwrap_or_default();
        number += 1;
        segment.record(10, 0x40, &imaged(16_384, number as u32, page));
    })
}

/// A record's body that changes one block, with `data` for it.
fn changed(relation: u32, block: u32, data: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0x20];
    body.extend((data.len() as u16).to_le_bytes());
    place(&mut body, relation, block);
    body.extend([255, 14]);
    body.extend(data);
    body.extend([0; 14]);
    body
}

/// The same with the page's image instead of the change.
fn imaged(relation: u32, block: u32, page: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0x10, 0, 0];
    body.extend((page.len() as u16).to_le_bytes());
    body.extend([0, 0, 2]);
    place(&mut body, relation, block);
    body.extend([255, 14]);
    body.extend(page);
    body.extend([0; 14]);
    body
}

fn place(body: &mut Vec<u8>, relation: u32, block: u32) {
    for number in [1663, 5, relation, block] {
        body.extend(number.to_le_bytes());
    }
}

struct Segment {
    bytes: Vec<u8>,
    previous: u64,
}

impl Segment {
    fn filled(mut write: impl FnMut(&mut Self)) -> Vec<u8> {
        let mut segment = Self { bytes: Vec::with_capacity(SEGMENT + PAGE), previous: START - 64 };
        while segment.bytes.len() < SEGMENT {
            write(&mut segment);
        }
        // What the last record has beyond it lies in the next segment.
        segment.bytes.truncate(SEGMENT);
        segment.bytes
    }

    fn page(&mut self, rest: usize) {
        let at = self.bytes.len();
        let first = at == 0;
        let info = u16::from(rest > 0) | if first { 2 } else { 0 };
        self.bytes.extend(0xD110_u16.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend((START + at as u64).to_le_bytes());
        self.bytes.extend((rest as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(77_u64.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    fn record(&mut self, manager: u8, info: u8, body: &[u8]) {
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page(0);
        }
        let start = START + self.bytes.len() as u64;
        let mut raw = Vec::with_capacity(24 + body.len());
        raw.extend((24 + body.len() as u32).to_le_bytes());
        raw.extend(7_u32.to_le_bytes());
        raw.extend(self.previous.to_le_bytes());
        raw.extend([info, manager, 0, 0]);
        let sum = crc32c::crc32c_append(crc32c::crc32c(body), &raw);
        raw.extend(sum.to_le_bytes());
        raw.extend(body);
        let mut left = raw.as_slice();
        while !left.is_empty() {
            if self.bytes.len().is_multiple_of(PAGE) {
                self.page(left.len());
            }
            let (now, later) = left.split_at(left.len().min(PAGE - self.bytes.len() % PAGE));
            self.bytes.extend(now);
            left = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = start;
    }
}

/// A tar stream as a server sends it, of `files` files of `length` bytes.
pub fn tar(files: usize, length: usize) -> Vec<u8> {
    let mut stream = Vec::with_capacity(files * (length + 1024) + 1024);
    let data = pages(length.div_ceil(PAGE));
    for number in 0..files {
        let mut header = [0_u8; 512];
        let mut field =
            |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(0, format!("base/5/{}", 16_384 + number));
        field(100, "0000600".to_owned());
        field(108, "0001750".to_owned());
        field(116, "0001750".to_owned());
        field(124, format!("{length:011o}"));
        field(136, format!("{:011o}", 1_700_000_000));
        field(148, " ".repeat(8));
        field(156, "0".to_owned());
        field(257, "ustar\u{0}00".to_owned());
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\u{0}").as_bytes());
        stream.extend(header);
        stream.extend(&data[..length]);
        stream.resize(stream.len().next_multiple_of(512), 0);
    }
    stream.resize(stream.len() + 1024, 0);
    stream
}
