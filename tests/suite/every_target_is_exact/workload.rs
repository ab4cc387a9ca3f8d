//! Clients at work side by side: what each of them did, as it says itself, and in which order, as `pg_waldump` says.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use pitr::types::{Lsn, Moment};

use crate::support::Server;

/// Numbers that look random and are the same for the same seed (xorshift64*).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % end
    }
}

const CLIENTS: u32 = 4;
const TRANSACTIONS: u32 = 60;

/// Runs it; the rows of every transaction that was, or would be, committed.
pub(super) fn run(server: &Server, random: &mut Random) -> BTreeMap<u32, Vec<u32>> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let script = script(client, random);
            let mut command = server.psql();
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()).unwrap());
            (child, writer)
        })
        .collect();
    let mut log = BTreeMap::new();
    for (child, writer) in clients {
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success(), "a client failed");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let Some(said) = line.strip_prefix("did ") else { continue };
            let (rows, xid) = said.split_once(' ').unwrap();
            let rows = rows.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect();
            assert_eq!(log.insert(xid.parse().unwrap(), rows), None);
        }
    }
    log
}

/// What one client does: every row has a number of its own, and before a transaction ends it is said which of them it leaves.
fn script(client: u32, random: &mut Random) -> String {
    let mut text = String::new();
    for i in 0..TRANSACTIONS {
        let mut n = (client * TRANSACTIONS + i) * 10;
        let mut rows = Vec::new();
        let mut insert = |text: &mut String, rows: &mut Vec<u32>, kept: bool| {
            n += 1;
            text.push_str(&format!("INSERT INTO t VALUES ({n});\n"));
            if kept {
                rows.push(n);
            }
        };
        text.push_str("BEGIN;\n");
        insert(&mut text, &mut rows, true);
        if random.below(5) == 0 {
            text.push_str(
                "INSERT INTO filler SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3000), \
                 generate_series(1, 3) part GROUP BY part;\n",
            );
        }
        if random.below(3) == 0 {
            text.push_str("SAVEPOINT kept;\n");
            insert(&mut text, &mut rows, true);
            text.push_str("RELEASE kept;\nSAVEPOINT lost;\n");
            insert(&mut text, &mut rows, false);
            text.push_str("ROLLBACK TO lost;\n");
            insert(&mut text, &mut rows, true);
        }
        let rows: Vec<String> = rows.iter().map(u32::to_string).collect();
        let said = format!("SELECT 'did {} ' || txid_current();\n", rows.join(","));
        let name = format!("g{client}x{i}");
        match random.below(8) {
            0 => text.push_str("ROLLBACK;\n"),
            1 => text.push_str(&format!("{said}PREPARE TRANSACTION '{name}';\nCOMMIT PREPARED '{name}';\n")),
            2 => text.push_str(&format!("PREPARE TRANSACTION '{name}';\nROLLBACK PREPARED '{name}';\n")),
            _ => text.push_str(&format!("{said}COMMIT;\n")),
        }
        match random.below(10) {
            0 => text.push_str(&format!("SELECT FROM pg_create_restore_point('{name}');\n")),
            1 => text.push_str("SELECT FROM pg_sleep(0.15);\n"),
            2 => text.push_str("CHECKPOINT;\n"),
            3..6 => text.push_str("SELECT FROM pg_sleep(0.01);\n"),
            _ => {}
        }
    }
    text
}

/// A record, as far as it matters here.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) lsn: Lsn,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Commit(u32, Moment),
    Abort(u32, Moment),
    Point(String),
    Other,
}

/// All records between two segments, in order.
pub(super) fn records(server: &Server, first: &str, last: &str) -> Vec<Record> {
    let mut waldump = server.account().command(server.installation().program("pg_waldump"));
    waldump.env("TZ", "UTC").arg("-p").arg(server.file("pg_wal")).args([first, last]);
    let text = String::from_utf8(waldump.output().unwrap().stdout).unwrap();
    text.lines().filter(|line| line.starts_with("rmgr: ")).map(record).collect()
}

fn record(line: &str) -> Record {
    let between = |from: &str, to: &str| {
        let rest = line.split_once(from).unwrap_or_else(|| panic!("no {from} in {line}")).1;
        rest.split_once(to).unwrap_or_else(|| panic!("no {to} in {line}")).0.trim().to_owned()
    };
    let lsn = between("lsn: ", ",").parse().unwrap();
    let said = line.split_once("desc: ").unwrap().1;
    let ended = |said: &str| {
        // "2026-04-07 15:22:59.000000 UTC; …", behind "742:" where the transaction was prepared.
        let (xid, said) = match said.split_once(": ") {
            Some((xid, said)) if xid.bytes().all(|b| b.is_ascii_digit()) => (xid.to_owned(), said),
            _ => (between("tx:", ","), said),
        };
        let time = said.split_once(" UTC").unwrap_or_else(|| panic!("no time in {line}")).0;
        let time = format!("{}Z", time.replace(' ', "T")).parse().unwrap();
        (xid.parse().unwrap(), Moment(time))
    };
    let what = if let Some(said) =
        said.strip_prefix("COMMIT_PREPARED ").or_else(|| said.strip_prefix("COMMIT "))
    {
        let (xid, time) = ended(said);
        What::Commit(xid, time)
    } else if let Some(said) = said.strip_prefix("ABORT_PREPARED ").or_else(|| said.strip_prefix("ABORT ")) {
        let (xid, time) = ended(said);
        What::Abort(xid, time)
    } else if let Some(name) = said.strip_prefix("RESTORE_POINT ") {
        What::Point(name.to_owned())
    } else {
        What::Other
    };
    Record { lsn, what }
}
