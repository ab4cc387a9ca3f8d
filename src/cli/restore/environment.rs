//! What of this environment the restored server will need in its own, which is another: all but the secrets
//! stands in its `restore_command`.

use std::path::Path;

use crate::cli::settings::variables_of_hooks;

/// Of the variables that the AWS SDK reads to find a server, a login or a certificate, those without a
/// secret in them.
const OF_AWS: [&str; 15] = [
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// The same, each with the path of a file or a directory.
const FILES_OF_AWS: [&str; 5] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Paths among the variables of our own.
const FILES: [&str; 2] = ["PITR_ARCHIVE_SPOOL", "PITR_REPOSITORY_CA_FILE"];

/// Secrets, which are never written down.
const SECRETS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];

/// The variables that are set, with what the server has to be given: its directory is another, so paths are
/// absolute.
pub(super) fn carried(variable: impl Fn(&str) -> Option<String>) -> std::io::Result<Vec<(String, String)>> {
    let mut carried = Vec::new();
    let of_aws = OF_AWS.into_iter().chain(FILES_OF_AWS).map(str::to_owned);
    for name in variables_of_hooks().chain(of_aws) {
        let Some(mut value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
        let is_path = FILES.contains(&name.as_str()) || FILES_OF_AWS.contains(&name.as_str());
        // The SDK reads "~/" itself.
        if is_path && Path::new(&value).is_relative() && !value.starts_with('~') {
            value = std::path::absolute(&value)?.display().to_string();
        }
        carried.push((name, value));
    }
    Ok(carried)
}

/// The warning that the server will lack this environment's credentials, where a repository is a bucket.
pub(super) fn lacking<'a>(
    mut urls: impl Iterator<Item = &'a str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let secrets: Vec<&str> = SECRETS.into_iter().filter(is_set).collect();
    (urls.any(|url| url.starts_with("s3://")) && !secrets.is_empty()).then(|| {
        format!(
            "warning: {} came from this environment and will not be in the server's: they are secrets and are written nowhere. \
             before it is started, set them in its environment, or name a profile that its account can read",
            secrets.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_secrets_is_carried_with_paths_that_hold_everywhere() {
        let set = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("http://store:9000".to_owned()),
            "AWS_CA_BUNDLE" => Some("certs/ca.pem".to_owned()),
            "AWS_CONFIG_FILE" => Some("~/aws".to_owned()),
            "AWS_REGION" => Some(String::new()),
            "PITR_ARCHIVE_SPOOL" => Some("/spool".to_owned()),
            "PITR_REPOSITORY_PATH_STYLE" => Some("true".to_owned()),
            "AWS_SECRET_ACCESS_KEY" | "PITR_POSTGRES_CONNINFO" => Some("hunter2".to_owned()),
            _ => None,
        };
        let carried = carried(set).unwrap();
        let value = |name: &str| carried.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("AWS_ENDPOINT_URL"), Some("http://store:9000"));
        let bundle = Path::new(value("AWS_CA_BUNDLE").unwrap());
        assert!(bundle.is_absolute() && bundle.ends_with("certs/ca.pem"), "{bundle:?}");
        assert_eq!(value("AWS_CONFIG_FILE"), Some("~/aws"));
        assert_eq!(value("PITR_ARCHIVE_SPOOL"), Some("/spool"));
        assert_eq!(value("PITR_REPOSITORY_PATH_STYLE"), Some("true"));
        assert_eq!(carried.len(), 5, "{carried:?}");
        let bucket = || ["file:///repo", "s3://bucket/p"].into_iter();
        assert!(lacking(bucket(), set).unwrap().contains("AWS_SECRET_ACCESS_KEY came"));
        assert_eq!(lacking(bucket().take(1), set), None);
        assert_eq!(lacking(bucket(), |_| None), None);
    }
}
