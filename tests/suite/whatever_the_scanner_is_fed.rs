//! The bounded form of `fuzz/`: the checked-in corpus, and seeded changes of it.

use std::path::Path;

#[path = "../../fuzz/check.rs"]
mod check;

/// Enough to change every input of the corpus several times, and a few seconds.
const ROUNDS: u64 = 30_000;

#[test]
fn a_segment_of_any_bytes_is_read_within_its_bounds() {
    rounds("segment", check::segment);
}

#[test]
fn an_intact_segment_of_any_records_is_read_to_its_end() {
    rounds("records", check::records);
}

fn rounds(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(corpus.len() >= 7, "the corpus has something of every major: {files:?}");
    for (file, input) in files.iter().zip(&corpus) {
        tried(&format!("{}", file.display()), input, check);
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (rounds, seed) =
        (number("PITR_FUZZ_ROUNDS").unwrap_or(ROUNDS), number("PITR_FUZZ_SEED").unwrap_or(15));
    let mut random = Random(seed);
    for round in 0..rounds {
        let input = random.changed(&corpus);
        tried(&format!("round {round} of seed {seed}"), &input, check);
    }
}

fn tried(which: &str, input: &[u8], check: fn(&[u8])) {
    if std::panic::catch_unwind(|| check(input)).is_err() {
        let kept = std::env::temp_dir().join(format!("pitr-fuzz-{}", std::process::id()));
        std::fs::write(&kept, input).unwrap();
        panic!("{which}: the input is in {}", kept.display());
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few lines, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    /// One of the corpus with up to eight changes.
    fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(input.len());
            match self.below(6) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = [0, 1, 0x7F, 0x80, 0xFF][self.below(5)],
                2 => input.truncate(at),
                3 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let length = self.below(other.len() - from).min(9000);
                    let end = (at + length).min(input.len());
                    input.splice(at..end, other[from..from + length].iter().copied());
                }
                4 => {
                    let wide = [0, 1, 23, 24, 8192, u32::MAX, 0x7FFF_FFFF, 65_536][self.below(8)];
                    for (to, from) in input.iter_mut().skip(at).zip(wide.to_le_bytes()) {
                        *to = from;
                    }
                }
                _ => {
                    let length = self.below(64);
                    let end = (at + length).min(input.len());
                    drop(input.drain(at..end));
                }
            }
        }
        input
    }
}
