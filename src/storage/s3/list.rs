//! Listing a bucket, page by page, and distrusting each page.
//!
//! A page that lost its end, or a server that orders names differently, would make segments look
//! missing; both are errors here instead.

use std::ops::ControlFlow;

use super::error::Failure;
use super::{ObjectInfo, S3Storage, name};

/// One page to ask for.
pub(super) struct Page {
    pub(super) prefix: String,
    pub(super) after: Option<String>,
    pub(super) token: Option<String>,
    pub(super) folders: bool,
    pub(super) keys: i32,
}

/// One page as answered: full keys, and where the next one begins.
pub(super) struct Answer {
    objects: Vec<ObjectInfo>,
    folders: Vec<String>,
    next: Option<String>,
}

impl S3Storage {
    pub(super) fn list_page(&self, page: Page) -> Result<Answer, Failure> {
        let bucket = self.options.bucket.clone();
        self.call(0, move |client| async move {
            let answer = client
                .list_objects_v2()
                .bucket(bucket)
                .prefix(page.prefix)
                .set_delimiter(page.folders.then(|| "/".to_owned()))
                .set_start_after(page.after)
                .set_continuation_token(page.token)
                .max_keys(page.keys)
                .send()
                .await
                .map_err(Failure::from_sdk)?;
            if answer.name.is_none() && answer.key_count.is_none() {
                // An empty page that no store has signed with the bucket's name proves nothing.
                return Err(Failure::integrity("the answer is not the listing of a bucket"));
            }
            let next = match (answer.is_truncated, answer.next_continuation_token) {
                (Some(true), None) => {
                    return Err(Failure::integrity("a listing broke off without a next page"));
                }
                (Some(true), token) => token,
                _ => None,
            };
            let objects = answer.contents.unwrap_or_default().into_iter().filter_map(|object| {
                Some(ObjectInfo {
                    size: u64::try_from(object.size.unwrap_or(0)).unwrap_or(0),
                    modified: object
                        .last_modified
                        .and_then(|m| jiff::Timestamp::from_nanosecond(m.as_nanos()).ok()),
                    name: object.key?,
                })
            });
            let folders = answer.common_prefixes.unwrap_or_default().into_iter().filter_map(|p| p.prefix);
            Ok(Answer { objects: objects.collect(), folders: folders.collect(), next })
        })
    }

    pub(super) fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let root = self.key("");
        let mut token = None;
        let mut last: Option<String> = None;
        loop {
            let page = Page {
                prefix: self.key(prefix),
                after: after.map(|name| self.key(name)),
                token,
                folders: false,
                keys: 1000,
            };
            let answer = self.list_page(page)?;
            for mut object in answer.objects {
                let Some(name) = object.name.strip_prefix(&root).filter(|n| n.starts_with(prefix)) else {
                    return Err(Failure::integrity("a listing shows names outside the prefix asked for"));
                };
                if last.as_deref().is_some_and(|last| last >= name) {
                    return Err(Failure::integrity("a listing is not in the order of the names"));
                }
                // Consoles leave "folder" objects behind; they are nobody's data.
                let shown = name::is_valid(name) && after.is_none_or(|after| name > after);
                let name = name.to_owned();
                if shown {
                    object.name.clone_from(&name);
                    if visit(object).is_break() {
                        return Ok(());
                    }
                }
                last = Some(name);
            }
            match answer.next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    pub(super) fn folders(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let above = self.key(prefix);
        let mut token = None;
        let mut folders = Vec::new();
        loop {
            let page = Page { prefix: above.clone(), after: None, token, folders: true, keys: 1000 };
            let answer = self.list_page(page)?;
            for folder in answer.folders {
                match folder.strip_prefix(&above).and_then(|f| f.strip_suffix('/')) {
                    Some(part) if name::is_valid(part) => folders.push(part.to_owned()),
                    Some(_) => {}
                    None => {
                        return Err(Failure::integrity("a listing shows names outside the prefix asked for"));
                    }
                }
            }
            match answer.next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        folders.sort_unstable();
        folders.dedup();
        Ok(folders)
    }
}
