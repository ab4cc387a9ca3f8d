//! A login that does not come about. Credentials are fetched inside the first request, and their failure
//! looks like a broken connection there; what an operator can do about it is another thing.

use std::error::Error as StdError;
use std::io::ErrorKind;

use aws_credential_types::provider::error::CredentialsError;

use super::error::{Failure, chain};
use super::{Kind, S3Options};

/// Error codes of a token service that may pass; every other refusal stays one.
const MAY_PASS: &[&str] = &[
    "Throttling",
    "InternalFailure",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "IDPCommunicationError",
];

/// The failure to log in that is among an error's causes, if one is.
pub(super) fn failure(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let causes = || std::iter::successors(Some(error), |&e| e.source());
    let found = causes().find_map(|e| e.downcast_ref::<CredentialsError>())?;
    let texts = chain(found);
    let missing_file = causes().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| {
        matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
    });
    // An answer without a code ("unhandled error: …") comes from a proxy, or a server that is not itself.
    let answered = texts.contains("service error") && !texts.contains("unhandled error: ");
    let refused = answered && !MAY_PASS.iter().any(|code| texts.contains(code));
    let (kind, text) = match found {
        CredentialsError::CredentialsNotLoaded(_) => (
            Kind::Denied,
            "no credentials: set a profile, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
        ),
        CredentialsError::ProviderError(_) if missing_file || refused => {
            (Kind::Denied, "credentials are refused")
        }
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
            (Kind::Transient, "credentials cannot be fetched")
        }
        _ => (Kind::Denied, "credentials cannot be loaded"),
    };
    // The SDK lists what it tried in several lines; the server's log has one for an error.
    let texts: Vec<&str> = texts.lines().map(str::trim).collect();
    Some(Failure::of_login(kind, format!("{text} ({})", texts.join("; "))))
}

/// Where the login was looked for, as far as somebody has said so: the SDK does not repeat it.
pub(super) fn place(options: &S3Options) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let profile = options.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let mut text = profile.map_or_else(String::new, |name| format!("; the profile is \"{name}\""));
    if let Some(file) = variable("AWS_WEB_IDENTITY_TOKEN_FILE") {
        text.push_str(&format!("; the token is in {file}"));
    }
    text
}
