//! Reading objects, whole or in part, and looking whether they are there.

use bytes::Bytes;

use super::S3Storage;
use super::error::Failure;
use super::known::Version;

/// What a GET comes to.
enum Answer {
    Absent,
    /// It still is what was asked about.
    Unchanged,
    Found(Version),
}

impl Answer {
    fn found(etag: Option<String>, bytes: Bytes) -> Self {
        Self::Found(Version { etag: etag.unwrap_or_default(), bytes })
    }
}

impl S3Storage {
    /// GET of an object or, with `range` (first and last byte), of a part of it.
    pub(super) fn get(&self, name: &str, range: Option<(u64, u64)>) -> Result<Option<Bytes>, Failure> {
        match self.ask(name, range, None)? {
            Answer::Absent => Ok(None),
            Answer::Found(version) => Ok(Some(version.bytes)),
            Answer::Unchanged => Err(Failure::transient("the answer to GET is that nothing has changed")),
        }
    }

    /// GET of a whole object; of one that was read before, only if it is another by now.
    pub(super) fn get_anew(&self, name: &str) -> Result<Option<Bytes>, Failure> {
        let before = self.known.find(name);
        let answer = self.ask(name, None, before.as_ref().map(|version| version.etag.clone()))?;
        let found = match (answer, before) {
            (Answer::Unchanged, Some(before)) => return Ok(Some(before.bytes)),
            (Answer::Found(version), _) => Some(version),
            (Answer::Absent, _) => None,
            (Answer::Unchanged, None) => {
                return Err(Failure::transient("the answer to GET is that nothing has changed"));
            }
        };
        self.known.keep(name, found.clone());
        Ok(found.map(|version| version.bytes))
    }

    /// One GET; with `unless`, for an object that has another ETag than this.
    fn ask(&self, name: &str, range: Option<(u64, u64)>, unless: Option<String>) -> Result<Answer, Failure> {
        let (bucket, key) = (self.options.bucket.clone(), self.key(name));
        let silence = self.options.answer_timeout;
        // The head of the answer has the ordinary limit; the body may take long but never be silent.
        let long = u64::from(u32::MAX) * 256;
        self.call(long, move |client| async move {
            let header = range.map(|(first, last)| format!("bytes={first}-{last}"));
            let conditional = unless.is_some();
            let request = client.get_object().bucket(bucket).key(key).set_range(header);
            let request = request.set_if_none_match(unless);
            let answer = match tokio::time::timeout(silence, request.send()).await {
                Err(_) => return Err(Failure::silent(silence)),
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    let failure = Failure::from_sdk(error);
                    return match (failure.code(), failure.status()) {
                        (_, 304) if conditional => Ok(Answer::Unchanged),
                        ("NoSuchKey", _) => Ok(Answer::Absent),
                        // The object is there and ends before the range begins.
                        ("InvalidRange", _) if range.is_some() => Ok(Answer::found(None, Bytes::new())),
                        _ => Err(failure),
                    };
                }
            };
            let announced = answer.content_length.and_then(|n| u64::try_from(n).ok());
            let partial = answer.content_range.is_some();
            let mut body = answer.body;
            let capacity = usize::try_from(announced.unwrap_or(0)).unwrap_or(0).min(1 << 30);
            let mut bytes = Vec::with_capacity(capacity);
            loop {
                match tokio::time::timeout(silence, body.next()).await {
                    Err(_) => return Err(Failure::silent(silence)),
                    Ok(None) => break,
                    Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
                    Ok(Some(Err(error))) => return Err(Failure::broken_body(error)),
                }
            }
            if announced.is_some_and(|n| n != bytes.len() as u64) {
                return Err(Failure::transient("the body ended before its announced length"));
            }
            let mut bytes = Bytes::from(bytes);
            if let (Some((first, last)), false) = (range, partial) {
                // A server that ignores ranges sends all of it.
                let end = usize::try_from(last + 1).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.slice(usize::try_from(first).unwrap_or(usize::MAX).min(end)..end);
            }
            Ok(Answer::found(answer.e_tag, bytes))
        })
    }

    pub(super) fn head(&self, name: &str) -> Result<Option<u64>, Failure> {
        let (bucket, key) = (self.options.bucket.clone(), self.key(name));
        let answer = self.call(0, move |client| async move {
            let answer = client.head_object().bucket(bucket).key(key).send().await;
            match answer {
                Ok(answer) => Ok(Some(answer.content_length)),
                Err(error) => {
                    let failure = Failure::from_sdk(error);
                    if failure.status() == 404 { Ok(None) } else { Err(failure) }
                }
            }
        })?;
        match answer {
            Some(length) => match length.and_then(|n| u64::try_from(n).ok()) {
                Some(length) => Ok(Some(length)),
                None => Err(Failure::integrity("the answer to HEAD names no length")),
            },
            // The answer to HEAD has no body, so no error code: a GET tells whether it is the key that is
            // missing, or the bucket, or the right address.
            None => match self.get(name, Some((0, 0)))? {
                None => Ok(None),
                Some(_) => Err(Failure::transient("HEAD found nothing and GET found something")),
            },
        }
    }
}
