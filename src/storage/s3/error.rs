//! From a server's answer to what a caller can do about it.

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::{Kind, S3Options, credentials};
use crate::storage::StorageError;

type Cause = Box<dyn StdError + Send + Sync>;

/// A request that failed. Holds texts only: an SDK error's debug output repeats requests.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    kind: Kind,
    status: u16,
    code: String,
    text: String,
    /// It is about the login, before any request.
    login: bool,
    #[source]
    cause: Option<Cause>,
}

impl Failure {
    fn new(kind: Kind, text: impl Into<String>, cause: Option<Cause>) -> Self {
        Self { kind, status: 0, code: String::new(), text: text.into(), login: false, cause }
    }

    pub(super) fn permanent(text: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, text, None)
    }

    pub(super) fn permanent_from(text: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::new(Kind::Permanent, text, Some(cause.into()))
    }

    pub(super) fn transient(text: impl Into<String>) -> Self {
        Self::new(Kind::Transient, text, None)
    }

    pub(super) fn integrity(text: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, text, None)
    }

    /// No request was sent: there is nobody to send it as.
    pub(super) fn of_login(kind: Kind, text: String) -> Self {
        Self { login: true, ..Self::new(kind, text, None) }
    }

    /// Adds where a login was looked for, to a failure that is about one.
    pub(super) fn with_place(mut self, options: &S3Options) -> Self {
        if self.login {
            self.text.push_str(&credentials::place(options));
        }
        self
    }

    pub(super) fn silent(limit: Duration) -> Self {
        Self::transient(format!("the server did not answer within {} ms", limit.as_millis()))
    }

    pub(super) fn broken_body(cause: impl StdError) -> Self {
        Self::transient(format!("the body broke off: {}", chain(&cause)))
    }

    /// The server's error code; empty where there was none.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The HTTP status; 0 where there was no answer.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn into_storage_error(self, action: &'static str, object: String) -> StorageError {
        StorageError::new(self.kind, action, object, self)
    }

    pub(super) fn from_sdk<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(failure) = credentials::failure(&error) {
            return failure;
        }
        match &error {
            SdkError::TimeoutError(_) => Self::transient("the server did not answer in time"),
            SdkError::DispatchFailure(failure) => {
                let text = chain(&error);
                // A certificate does not become right by waiting.
                let certificate = text.contains("invalid peer certificate");
                let kind = if failure.is_user() || certificate { Kind::Permanent } else { Kind::Transient };
                Self::new(kind, text, None)
            }
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code().unwrap_or_default().to_owned();
                let message = service.err().message().unwrap_or_default();
                let region = service.raw().headers().get("x-amz-bucket-region");
                let text = describe(status, &code, message, region);
                Self { kind: kind_of(status, &code), status, code, text, login: false, cause: None }
            }
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                // Truncated or mangled on the way; as a 4xx it is at least an answer.
                let kind = if (300..500).contains(&status) { kind_of(status, "") } else { Kind::Transient };
                let text = format!("the answer (HTTP {status}) cannot be understood: {}", chain(&error));
                Self { kind, status, code: String::new(), text, login: false, cause: None }
            }
            _ => Self::permanent(chain(&error)),
        }
    }
}

fn describe(status: u16, code: &str, message: &str, region: Option<&str>) -> String {
    let mut text = match (code, message) {
        ("", "") => format!("the server answers HTTP {status} without an error code"),
        ("", message) => format!("the server answers HTTP {status}: {message}"),
        (code, "") => format!("the server answers {code} (HTTP {status})"),
        (code, message) => format!("the server answers {code} (HTTP {status}): {message}"),
    };
    if let Some(region) = region.filter(|_| (300..=400).contains(&status)) {
        text.push_str(&format!("; the bucket is in region {region}"));
    }
    if code == "RequestTimeTooSkewed" {
        text.push_str("; is this host's clock right?");
    }
    text
}

fn kind_of(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchBucket" => Kind::RootMissing,
        "RequestTimeTooSkewed" | "InvalidObjectState" | "NoSuchKey" => Kind::Permanent,
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => Kind::Permanent,
        // A body that was altered on the way is whole again when it is sent again.
        "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" => Kind::Transient,
        "SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout" | "Throttling" => {
            Kind::Transient
        }
        "ConditionalRequestConflict" | "OperationAborted" => Kind::Transient,
        "QuotaExceeded" | "XMinioStorageFull" => Kind::Full,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" => Kind::Denied,
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Kind::Denied,
        _ => match status {
            401 | 403 | 405 => Kind::Denied,
            408 | 409 | 425 | 429 => Kind::Transient,
            501 => Kind::Permanent,
            507 => Kind::Full,
            500.. => Kind::Transient,
            _ => Kind::Permanent,
        },
    }
}

/// The texts of an SDK error's levels, without those that repeat the one above.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(level) = source {
        let text = level.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        source = level.source();
    }
    texts.join(": ")
}
