//! Who we are to the store: variables, profiles, a web identity. What was used is read off the requests' own signatures.

use super::{ABSENT, with_bucket};
use crate::support::{Answer, BrokenS3, Pitr, S3Kind, S3Server, TestDir};

/// A store that notes how it was asked, with a variable for the address.
fn noting(dir: &TestDir, store: &S3Server) -> (BrokenS3, Pitr) {
    let proxy = BrokenS3::start(Some(&store.endpoint), |_, _| Answer::PassOn);
    let pitr = with_bucket(dir, store, &store.bucket())
        .env("PITR_REPOSITORY_ENDPOINT", &proxy.endpoint)
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY")
        .without("AWS_REGION");
    (proxy, pitr)
}

/// The access key and region that signed the first request.
#[track_caller]
fn signed(pitr: &Pitr, proxy: &BrokenS3, dir: &TestDir) -> (String, String) {
    let before = proxy.heads().len();
    let out = dir.join("out").display().to_string();
    let done = pitr.run(["archive-get", ABSENT, &out]);
    // Nothing was ever stored there: it was reached, and it is empty.
    done.expect_code(255);
    done.expect_said("is empty");
    let head = proxy.heads().get(before).expect("a request").clone();
    let line =
        head.lines().find(|l| l.to_ascii_lowercase().starts_with("authorization:")).expect("a signature");
    let scope = line.split("Credential=").nth(1).unwrap();
    let mut parts = scope.split('/');
    (parts.next().unwrap().to_owned(), parts.nth(1).unwrap().to_owned())
}

#[test]
fn variables_profiles_and_the_configuration_name_the_login() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (proxy, pitr) = noting(&dir, &store);
    let credentials = dir.write(
        "credentials",
        "[default]\naws_access_key_id = KEYOFDEFAULT\naws_secret_access_key = s\n\
         [backup]\naws_access_key_id = KEYOFBACKUP\naws_secret_access_key = s\naws_session_token = tokenofbackup\n",
    );
    let config =
        dir.write("config", "[default]\nregion = eu-central-1\n[profile backup]\nregion = eu-north-1\n");
    let files = pitr
        .clone()
        .env("AWS_SHARED_CREDENTIALS_FILE", credentials.display().to_string())
        .env("AWS_CONFIG_FILE", config.display().to_string());
    let pair = |key: &str, region: &str| (key.to_owned(), region.to_owned());

    let keys = pitr.env("AWS_ACCESS_KEY_ID", "KEYOFENV").env("AWS_SECRET_ACCESS_KEY", "s");
    assert_eq!(signed(&keys, &proxy, &dir), pair("KEYOFENV", "us-east-1"));
    let region = keys.clone().env("AWS_REGION", "eu-south-1");
    assert_eq!(signed(&region, &proxy, &dir), pair("KEYOFENV", "eu-south-1"));
    let region = region.env("PITR_REPOSITORY_REGION", "eu-south-2");
    assert_eq!(signed(&region, &proxy, &dir), pair("KEYOFENV", "eu-south-2"));

    assert_eq!(signed(&files, &proxy, &dir).0, "KEYOFDEFAULT");
    assert_eq!(signed(&files, &proxy, &dir).1, "eu-central-1");
    let profile = files.clone().env("AWS_PROFILE", "backup");
    assert_eq!(signed(&profile, &proxy, &dir), pair("KEYOFBACKUP", "eu-north-1"));
    // A session's token goes along.
    let head = proxy.heads().pop().unwrap().to_ascii_lowercase();
    assert!(head.contains("x-amz-security-token: tokenofbackup"), "{head}");
    // The configuration's own word beats the variable.
    let profile = files.env("AWS_PROFILE", "default").env("PITR_REPOSITORY_PROFILE", "backup");
    assert_eq!(signed(&profile, &proxy, &dir), pair("KEYOFBACKUP", "eu-north-1"));
}

#[test]
fn a_web_identity_is_exchanged_for_a_login() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (proxy, pitr) = noting(&dir, &store);
    // A token service that knows one token.
    let sts = BrokenS3::start(None, |_, _| {
        let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                    <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>KEYOFROLE</AccessKeyId>\
                    <SecretAccessKey>secretofrole</SecretAccessKey><SessionToken>tokenofrole</SessionToken>\
                    <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                    <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>";
        Answer::Full(200, "content-type: text/xml\r\n", body.to_owned())
    });
    let token = dir.write("token", "a-web-identity-token");
    let pitr = pitr
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string())
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
        .env("AWS_ENDPOINT_URL_STS", &sts.endpoint)
        .env("AWS_REGION", "eu-west-1");
    assert_eq!(signed(&pitr, &proxy, &dir), ("KEYOFROLE".to_owned(), "eu-west-1".to_owned()));
    assert!(proxy.heads().pop().unwrap().to_ascii_lowercase().contains("x-amz-security-token: tokenofrole"));
    assert!(sts.count() >= 1);

    // The token's file is gone; the service refuses.
    let out = dir.join("out").display().to_string();
    let gone = pitr.clone().env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token");
    let done = gone.run(["archive-get", ABSENT, &out]);
    done.expect_code(255);
    done.expect_said("the token is in /nonexistent/token");
    assert!(!done.stderr.contains("trying again"), "{}", done.stderr);
    let refuses = BrokenS3::start(None, |_, _| {
        let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                    <Code>AccessDenied</Code><Message>as ordered</Message></Error></ErrorResponse>";
        Answer::Full(403, "content-type: text/xml\r\n", body.to_owned())
    });
    let done = pitr.clone().env("AWS_ENDPOINT_URL_STS", &refuses.endpoint).run(["archive-get", ABSENT, &out]);
    done.expect_code(255);
    done.expect_said("AccessDenied");
    done.expect_said("are the credentials right");
    assert!(!done.stderr.contains("trying again"), "{}", done.stderr);
}

#[test]
fn a_token_service_that_is_down_is_tried_again() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (_proxy, pitr) = noting(&dir, &store);
    let token = dir.write("token", "a-web-identity-token");
    let down = BrokenS3::start(None, |_, _| Answer::Bare(503));
    let done = pitr
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string())
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
        .env("AWS_ENDPOINT_URL_STS", &down.endpoint)
        .env("AWS_REGION", "eu-west-1")
        // The SDK tries a token service three times by itself, with pauses of up to 1 and 2 s: our own begins behind that.
        .env("PITR_ARCHIVE_GET_RETRY", "8")
        .run(["archive-get", ABSENT, &dir.join("out").display().to_string()]);
    done.expect_code(255);
    done.expect_said("trying again");
    assert!(down.count() > 3, "{} requests", down.count());
    done.expect_said("credentials cannot be fetched");
}

#[test]
fn the_bucket_stands_in_the_path_or_in_the_hosts_name() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (proxy, pitr) = noting(&dir, &store);
    let pitr = pitr.env("AWS_ACCESS_KEY_ID", "KEYOFENV").env("AWS_SECRET_ACCESS_KEY", "s");
    signed(&pitr, &proxy, &dir);
    let head = proxy.heads().pop().unwrap();
    assert!(head.lines().next().unwrap().split('/').nth(1).unwrap().starts_with('t'), "{head}");
    // In the host's name: what is looked for is bucket.host, and this machine's resolver knows none.
    let by_name = pitr
        .env("PITR_REPOSITORY_PATH_STYLE", "false")
        .env("PITR_REPOSITORY_ENDPOINT", proxy.endpoint.replace("127.0.0.1", "no-such-host.invalid"))
        .env("PITR_ARCHIVE_GET_RETRY", "0");
    let before = proxy.heads().len();
    let out = dir.join("out").display().to_string();
    by_name.run(["archive-get", ABSENT, &out]).expect_code(255);
    assert_eq!(proxy.heads().len(), before);
}
