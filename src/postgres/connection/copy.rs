//! The bytes of a copy, read to where they belong: a base backup is gigabytes, and a copy of them more is time.

use bytes::{Buf, BufMut};
use tokio::io::AsyncReadExt;

use super::Connection;
use crate::postgres::error::PostgresError;

/// Tag, length.
const HEADER: usize = 5;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// Copy data that begins as it should; how many bytes that is, and how many follow them.
    Body(usize, usize),
    /// Too little to tell: so many bytes would do for the next look.
    Short(usize),
    /// Another message.
    Other,
}

fn begin(bytes: &[u8], first: &[u8]) -> Begin {
    if bytes.first().is_some_and(|tag| *tag != b'd') {
        return Begin::Other;
    }
    let Some(header) = bytes.get(..HEADER) else { return Begin::Short(HEADER) };
    let length = header.iter().skip(1).fold(0usize, |n, b| n << 8 | usize::from(*b));
    let Some(left) = length.checked_sub(4 + first.len()) else { return Begin::Other };
    match bytes.get(HEADER..HEADER + first.len()) {
        Some(found) if found == first => Begin::Body(HEADER + first.len(), left),
        Some(_) => Begin::Other,
        None => Begin::Short(HEADER + first.len()),
    }
}

impl Connection {
    /// Appends to `out` what messages of copy data hold behind their `first` bytes, until it has `most` bytes or
    /// another message comes, which is still to be received then. `left` bytes are still to come of the body that is
    /// being read; before them nothing else can be received.
    pub(in crate::postgres) async fn copy_bodies(
        &mut self,
        first: &[u8],
        left: &mut usize,
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<(), PostgresError> {
        while out.len() < most {
            if *left > 0 && self.input.is_empty() {
                let new = out.len();
                read(&mut self.socket, &mut (&mut *out).limit(most - new)).await?;
                let (end, behind) = close_up(out, new, first, left);
                self.input.extend_from_slice(out.get(behind..).unwrap_or_default());
                out.truncate(end);
                continue;
            }
            if *left > 0 {
                let here = (*left).min(most - out.len()).min(self.input.len());
                out.extend_from_slice(&self.input.split_to(here));
                *left -= here;
                continue;
            }
            match begin(&self.input, first) {
                Begin::Body(header, body) => {
                    self.input.advance(header);
                    *left = body;
                }
                // No more than that: what is behind it is read to its place.
                Begin::Short(wanted) => {
                    let missing = wanted - self.input.len();
                    read(&mut self.socket, &mut (&mut self.input).limit(missing)).await?;
                }
                Begin::Other => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Of what was read behind `new`, which begins with `left` bytes of a body: moves the bodies of the messages that follow
/// together. Returns where they end, and where what is to be received begins.
fn close_up(out: &mut [u8], new: usize, first: &[u8], left: &mut usize) -> (usize, usize) {
    let (mut at, mut end) = (new, new);
    loop {
        let here = (*left).min(out.len() - at);
        if at > end {
            out.copy_within(at..at + here, end);
        }
        (at, end) = (at + here, end + here);
        *left -= here;
        match begin(out.get(at..).unwrap_or_default(), first) {
            Begin::Body(header, body) if *left == 0 => {
                at += header;
                *left = body;
            }
            _ => return (end, at),
        }
    }
}

async fn read(
    socket: &mut (impl tokio::io::AsyncRead + Unpin),
    into: &mut impl BufMut,
) -> Result<(), PostgresError> {
    match socket.read_buf(into).await {
        Ok(0) => Err(PostgresError::Closed),
        Ok(_) => Ok(()),
        Err(e) => Err(PostgresError::Lost(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use bytes::BytesMut;
    use postgres_protocol::message::backend::Message;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::postgres::connection::Received;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    /// A connection to somebody who says these bytes, in pieces of these lengths in turn, and goes.
    async fn told<T>(said: Vec<u8>, pieces: Vec<usize>, hear: impl AsyncFnOnce(&mut Connection) -> T) -> T {
        let (mine, mut other) = tokio::io::duplex(100_000);
        let mut connection = Connection {
            socket: Box::new(mine),
            input: BytesMut::new(),
            target: String::new(),
            parameters: BTreeMap::new(),
            notices: VecDeque::new(),
            encrypted: false,
        };
        let say = async move {
            let mut rest = &said[..];
            for piece in pieces.into_iter().cycle() {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                other.write_all(now).await.unwrap();
                tokio::task::yield_now().await;
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        };
        tokio::join!(say, hear(&mut connection)).1
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn bodies_are_joined_however_they_arrive_and_what_follows_is_left(
            lengths in prop::collection::vec(prop_oneof![0..4usize, 0..3000usize], 0..12),
            pieces in prop::collection::vec(prop_oneof![1..9usize, 1..5000usize], 1..5),
            rooms in prop::collection::vec(prop_oneof![1..9usize, 1..4000usize], 1..5),
            typed in any::<bool>(),
        ) {
            let first: &[u8] = if typed { b"d" } else { b"" };
            let mut byte = 0u8;
            let bodies: Vec<Vec<u8>> = lengths.iter().map(|n| (0..*n).map(|_| { byte = byte.wrapping_mul(5).wrapping_add(99); byte }).collect()).collect();
            let mut said: Vec<u8> = bodies.iter().flat_map(|b| message(b'd', &[first, b].concat())).collect();
            // Behind them: copy data of another kind, or the end.
            said.extend(if typed { message(b'd', b"p12345678") } else { message(b'c', b"") });
            said.extend(message(b'Z', b"I"));
            let (joined, next, last) = run(told(said, pieces, async |connection| {
                let (mut out, mut left) = (Vec::new(), 0);
                for room in rooms.iter().cycle() {
                    let most = out.len() + room;
                    connection.copy_bodies(first, &mut left, &mut out, most).await.unwrap();
                    assert!(out.len() <= most);
                    if out.len() < most {
                        break;
                    }
                }
                assert_eq!(left, 0);
                (out, connection.receive("").await.unwrap(), connection.receive("").await.unwrap())
            }));
            prop_assert_eq!(joined, bodies.concat());
            match next {
                Received::Message(Message::CopyData(body)) if typed => prop_assert_eq!(body.data(), b"p12345678"),
                Received::Message(Message::CopyDone) if !typed => {}
                _ => prop_assert!(false),
            }
            prop_assert!(matches!(last, Received::Message(Message::ReadyForQuery(_))));
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_body_or_a_header_is_lost() {
        let whole = [message(b'd', b"d1234"), message(b'd', b"d5678")].concat();
        for end in 0..whole.len() {
            let lost = run(told(whole[..end].to_vec(), vec![7], async |connection| {
                connection.copy_bodies(b"d", &mut 0, &mut Vec::new(), 8).await.unwrap_err()
            }));
            assert!(matches!(lost, PostgresError::Closed), "{end}: {lost}");
        }
    }

    #[test]
    fn a_message_without_room_for_its_kind_is_not_taken_for_data() {
        // The second one's tag must not be taken for the first one's kind.
        let said = [message(b'd', b""), message(b'd', b"d1")].concat();
        let (out, next) = run(told(said, vec![3], async |connection| {
            let (mut out, mut left) = (Vec::new(), 0);
            connection.copy_bodies(b"d", &mut left, &mut out, 10).await.unwrap();
            assert_eq!(left, 0);
            (out, connection.receive("").await.unwrap())
        }));
        assert!(out.is_empty());
        assert!(matches!(next, Received::Message(Message::CopyData(body)) if body.data().is_empty()));
    }
}
