//! The loops that every byte goes through: the scan of a segment, a frame each way, the reading of a tar stream.
#![allow(missing_docs, reason = "criterion_group! makes a function without")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pitr::codec::{FrameDecoder, FrameEncoder, MAX_FRAME_RAW, blake3_hex};
use pitr::pgdata::tar::{TarEvent, TarReader};
use pitr::types::{SegmentName, SegmentSize, TimelineId};
use pitr::wal::SegmentScanner;
use pitr_bench::{NUMBER, PAGE, SEGMENT, pages, segment_of_images, segment_of_rows, tar};

/// What a server hands over in one message of a base backup.
const MESSAGE: usize = 64 << 10;

fn scanner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    let size = SegmentSize::DEFAULT;
    let name = SegmentName::from_number(TimelineId(1), NUMBER, size);
    for (kind, bytes) in [("rows", segment_of_rows()), ("images", segment_of_images())] {
        let scan = |bytes: &[u8]| {
            let mut scanner = SegmentScanner::new(name, size);
            bytes.chunks(MAX_FRAME_RAW).for_each(|chunk| scanner.push(chunk));
            scanner.finish()
        };
        let found = scan(&bytes);
        assert!(found.problem.is_none() && found.damage.is_none() && found.records > 1000, "{found:?}");
        group.bench_with_input(BenchmarkId::from_parameter(kind), &bytes, |b, bytes| {
            b.iter(|| scan(black_box(bytes)))
        });
    }
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let rows = segment_of_rows();
    for (kind, raw) in [("pages", pages(MAX_FRAME_RAW / PAGE)), ("wal", rows[..MAX_FRAME_RAW].to_vec())] {
        group.throughput(Throughput::Bytes(raw.len() as u64));
        let mut encoder = FrameEncoder::new(3).expect("a zstd level");
        let mut stored = Vec::new();
        group.bench_function(BenchmarkId::new("encode", kind), |b| {
            b.iter(|| {
                stored.clear();
                encoder.append(black_box(&raw), &mut stored).expect("memory")
            });
        });
        let digest = blake3_hex(&raw);
        let mut decoder = FrameDecoder::new().expect("memory");
        let mut back = Vec::new();
        group.bench_function(BenchmarkId::new("decode and prove", kind), |b| {
            b.iter(|| {
                decoder.decode(black_box(&stored), raw.len(), &digest, &mut back).expect("what was encoded")
            });
        });
        assert!(back == raw);
    }
    group.finish();
}

fn tar_reader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tar");
    for (kind, files, length) in [("files of 8 KiB", 4000, PAGE), ("empty files", 4000, 0)] {
        let stream = tar(files, length);
        let read = |stream: &[u8]| {
            let (mut reader, mut ended, mut total) = (TarReader::new(), 0, 0);
            for mut message in stream.chunks(MESSAGE) {
                while let Some(event) = reader.next(&mut message).expect("a tar stream") {
                    match event {
                        TarEvent::Entry(_) => {}
                        TarEvent::Data(bytes) => total += bytes.len(),
                        TarEvent::FileEnd => ended += 1,
                    }
                }
            }
            (ended, total)
        };
        assert_eq!(read(&stream), (files, files * length));
        // Data is handed on as it came, so that only headers cost.
        group.throughput(Throughput::Elements(files as u64));
        group.bench_with_input(BenchmarkId::from_parameter(kind), &stream, |b, stream| {
            b.iter(|| read(black_box(stream)))
        });
    }
    group.finish();
}

criterion_group! {
    name = loops;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_secs(1))
        .measurement_time(std::time::Duration::from_secs(3));
    targets = scanner, codec, tar_reader
}
criterion_main!(loops);
