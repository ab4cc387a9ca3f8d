//! From a repository's URL to its storage.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{FsStorage, RetryStorage, S3Options, S3Storage, Storage};

/// How to reach a storage, besides its URL.
#[derive(Debug, Clone)]
pub struct Options {
    /// S3: the server's address where it is not AWS.
    pub endpoint: Option<String>,
    /// S3: the region; else what the environment or the profile says.
    pub region: Option<String>,
    /// S3: the bucket's name in the path instead of the host's name. On by default with an endpoint.
    pub path_style: Option<bool>,
    /// S3: a profile of the AWS configuration files.
    pub profile: Option<String>,
    /// S3: a PEM file of further certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// For how long a call that may pass is tried again.
    pub retry_budget: Duration,
    /// The budget is one for all calls together, as a hook needs it.
    pub one_budget: bool,
    /// S3: where objects that are too large for memory wait for their request.
    pub temp_dir: PathBuf,
    /// S3: bytes of one object that wait in memory for its request, and not in a file.
    pub in_memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            ca_file: None,
            retry_budget: Duration::from_secs(60),
            one_budget: false,
            temp_dir: std::env::temp_dir(),
            in_memory: 64 << 20,
        }
    }
}

/// A repository's URL that cannot be understood. The text never repeats a password written into it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// A path without a scheme.
    #[error("{0:?} has no scheme; a local repository is file://{0}")]
    BarePath(String),
    /// Neither `file://` nor `s3://`.
    #[error("a repository is file:///absolute/path or s3://bucket/prefix, not {0:?}")]
    UnknownScheme(String),
    /// `file://` and no absolute path.
    #[error("file:// is followed by an absolute path: file:///var/lib/pitr has three slashes")]
    NotAbsolute,
    /// A path that is the root directory, or goes up.
    #[error("{0:?} cannot be a repository: name one directory, without . or ..")]
    BadPath(PathBuf),
    /// A name no bucket can have.
    #[error("{0:?} is not the name of a bucket: s3://bucket/prefix")]
    BadBucket(String),
    /// A prefix that could leave the repository.
    #[error("{0:?} cannot be a prefix: no empty parts, no . and ..")]
    BadPrefix(String),
    /// `s3://key:secret@bucket`.
    #[error(
        "credentials do not belong into a repository's URL: use a profile or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials,
    /// An endpoint without its scheme, or with more than an address.
    #[error("the endpoint is http(s)://host[:port], not {0:?}")]
    Endpoint(String),
    /// `?region=…`.
    #[error("a repository's URL has no parameters: endpoint and region are settings of their own")]
    Parameters,
}

/// Opens the storage at `url`, with retries. Nothing is touched or reached before its first call.
pub fn open(url: &str, options: &Options) -> Result<Box<dyn Storage>, UrlError> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(retried(FsStorage::new(local_path(path)?), options));
    }
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = bucket_and_prefix(rest)?;
        if let Some(endpoint) = &options.endpoint {
            check_endpoint(endpoint)?;
        }
        let storage = S3Storage::new(S3Options {
            endpoint: options.endpoint.clone(),
            region: options.region.clone(),
            path_style: options.path_style,
            profile: options.profile.clone(),
            ca_file: options.ca_file.clone(),
            temp_dir: options.temp_dir.clone(),
            in_memory: options.in_memory,
            ..S3Options::new(bucket, prefix)
        });
        return Ok(retried(storage, options));
    }
    if url.starts_with('/') {
        return Err(UrlError::BarePath(url.to_owned()));
    }
    // Only what stands before the colon: the rest of a foreign URL may hold a password.
    Err(UrlError::UnknownScheme(url.split(':').next().unwrap_or_default().to_owned()))
}

fn retried<S: Storage + 'static>(storage: S, options: &Options) -> Box<dyn Storage> {
    Box::new(if options.one_budget {
        RetryStorage::for_one_run(storage, options.retry_budget)
    } else {
        RetryStorage::new(storage, options.retry_budget)
    })
}

fn local_path(path: &str) -> Result<PathBuf, UrlError> {
    if !path.starts_with('/') {
        return Err(UrlError::NotAbsolute);
    }
    // As it stands, without percent decoding: operators paste paths, and no host or query can follow.
    let trimmed = path.trim_end_matches('/');
    let parts_fit =
        Path::new(trimmed).components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let dots = trimmed.split('/').any(|part| part == "." || part == "..");
    if trimmed.is_empty() || !parts_fit || dots {
        return Err(UrlError::BadPath(PathBuf::from(path)));
    }
    Ok(PathBuf::from(trimmed))
}

fn bucket_and_prefix(rest: &str) -> Result<(&str, &str), UrlError> {
    if rest.contains('@') {
        return Err(UrlError::Credentials);
    }
    if rest.contains(['?', '#']) {
        return Err(UrlError::Parameters);
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket_fits = (3..=255).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !bucket_fits {
        return Err(UrlError::BadBucket(bucket.to_owned()));
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && !super::name::is_valid(prefix) {
        return Err(UrlError::BadPrefix(prefix.to_owned()));
    }
    Ok((bucket, prefix))
}

fn check_endpoint(endpoint: &str) -> Result<(), UrlError> {
    if endpoint.contains('@') {
        return Err(UrlError::Credentials);
    }
    let address = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    match address.map(|address| address.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && !host.contains(['?', '#', ' ']) => Ok(()),
        _ => Err(UrlError::Endpoint(endpoint.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> UrlError {
        open(url, &Options::default()).err().unwrap_or_else(|| panic!("{url} was accepted"))
    }

    #[test]
    fn both_kinds_of_url_are_understood() {
        for (url, shown) in [
            ("file:///var/lib/pitr/", "file:///var/lib/pitr"),
            ("file:///with space/100%", "file:///with space/100%"),
            ("s3://backups", "s3://backups"),
            ("s3://backups/prod/eu/", "s3://backups/prod/eu"),
        ] {
            assert_eq!(open(url, &Options::default()).unwrap().url(), shown);
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused_with_the_reason() {
        assert_eq!(refused("/var/lib/pitr"), UrlError::BarePath("/var/lib/pitr".into()));
        assert_eq!(refused("file://var/lib/pitr"), UrlError::NotAbsolute);
        assert!(matches!(refused("file:///"), UrlError::BadPath(_)));
        assert!(matches!(refused("file:///var/../etc"), UrlError::BadPath(_)));
        assert!(matches!(refused("https://host/x"), UrlError::UnknownScheme(_)));
        assert!(matches!(refused("s3:///prefix"), UrlError::BadBucket(_)));
        assert!(matches!(refused("s3://bucket//a"), UrlError::BadPrefix(_)));
        assert_eq!(refused("s3://bucket?region=x"), UrlError::Parameters);
    }

    #[test]
    fn an_endpoint_is_a_whole_address() {
        let with = |endpoint: &str| {
            let options = Options { endpoint: Some(endpoint.to_owned()), ..Options::default() };
            open("s3://bucket", &options).map(drop)
        };
        for right in ["https://s3.example.org", "http://127.0.0.1:9000/", "https://gateway/path"] {
            assert_eq!(with(right), Ok(()), "{right}");
        }
        for wrong in ["localhost:9000", "s3.example.org", "https://", "ftp://x", "http://host?x=1"] {
            assert_eq!(with(wrong), Err(UrlError::Endpoint(wrong.to_owned())));
        }
        assert_eq!(with("https://me:hunter2@host"), Err(UrlError::Credentials));
    }

    #[test]
    fn a_secret_in_a_url_is_not_repeated() {
        for url in ["s3://AKIA:hunter2@bucket/prefix", "ftp://me:hunter2@host/"] {
            assert!(!refused(url).to_string().contains("hunter2"));
        }
    }
}
