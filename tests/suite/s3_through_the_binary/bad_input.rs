//! Each wrong word about a bucket: a clear error, the operator's question, tried again only where that may help, and never
//! taken for absence.

use super::{ABSENT, with_bucket};
use crate::support::{Answer, BrokenS3, Pitr, S3Kind, S3Server, Server, TestDir};

/// What all three kinds of commands do with a repository that is wrong.
#[track_caller]
fn refused(pitr: &Pitr, dir: &TestDir, words: &[&str]) {
    let out = dir.join("out");
    let out = out.display().to_string();
    for (arguments, code) in
        [(vec!["archive-get", ABSENT, &out], 255), (vec!["archive-push", "pg_wal/00000002.history"], 1)]
    {
        let done = pitr.run(&arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.stderr);
        for word in words {
            done.expect_said(word);
        }
        assert!(done.stderr.contains("\nhint: "), "no question: {}", done.stderr);
        assert!(!dir.join("out").exists());
    }
}

/// A directory where both hooks can be called: with something to push, and the repository once used.
fn data_directory(dir: &TestDir, pitr: &Pitr) -> (Server, Pitr) {
    let server = Server::build(dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.archive_now();
    let history = server.file("pg_wal/00000002.history");
    std::fs::write(&history, "1\t0/3000000\tno recovery target specified\n").unwrap();
    server.account().own(&history);
    let pitr = pitr.clone().in_dir(server.file(""));
    (server, pitr)
}

#[test]
fn a_real_store_refuses_wrong_credentials_and_a_missing_bucket() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Ceph);
    let (_server, pitr) = data_directory(&dir, &with_bucket(&dir, &store, &store.bucket()));
    let credentials = "are the credentials right (profile, AWS_*, role)";
    refused(
        &pitr.clone().env("AWS_SECRET_ACCESS_KEY", "wrong"),
        &dir,
        &["SignatureDoesNotMatch", credentials],
    );
    refused(&pitr.clone().env("AWS_ACCESS_KEY_ID", "nobody"), &dir, &["InvalidAccessKeyId", credentials]);
    let nobody = pitr.clone().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    refused(&nobody, &dir, &["no credentials: set a profile", credentials]);
    refused(&nobody.env("AWS_PROFILE", "nobody"), &dir, &["the profile is \"nobody\"", credentials]);
    // Another bucket's name than this host has used, which does not exist either.
    let missing = pitr.clone().repository("s3://no-such-bucket-anywhere/prod");
    refused(&missing, &dir, &["NoSuchBucket", "is the bucket's name right"]);
    // A prefix that was never used: a hook may begin there, and a get has no proof of anything.
    let other = pitr.clone().repository(format!("{}-other", repository_of(&pitr)));
    let out = dir.join("out").display().to_string();
    let get = other.run(["archive-get", ABSENT, &out]);
    get.expect_code(255);
    get.expect_said("is empty");
}

fn repository_of(pitr: &Pitr) -> String {
    let command = pitr.command(["info"]);
    let found = command.get_envs().find(|(name, _)| *name == "PITR_REPOSITORY").and_then(|(_, value)| value);
    found.unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_waiting_does_not_mend_is_asked_once() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (_server, pitr) = data_directory(&dir, &with_bucket(&dir, &store, &store.bucket()));
    let xml = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as ordered</Message></Error>")
    };
    for (answer, words) in [
        (
            Answer::Error(403, "RequestTimeTooSkewed"),
            vec!["RequestTimeTooSkewed", "is this host's clock right?"],
        ),
        (
            Answer::Error(403, "AccessDenied"),
            vec!["AccessDenied", "may they list, read and write in this bucket?"],
        ),
        (Answer::Error(403, "ExpiredToken"), vec!["ExpiredToken", "are the credentials right"]),
        (
            Answer::Full(301, "x-amz-bucket-region: eu-west-1\r\n", xml("PermanentRedirect")),
            vec!["the bucket is in region eu-west-1", "region"],
        ),
        (
            Answer::Full(400, "x-amz-bucket-region: eu-west-1\r\n", xml("AuthorizationHeaderMalformed")),
            vec!["the bucket is in region eu-west-1", "region"],
        ),
        // An address where something else answers.
        (Answer::Bare(404), vec!["HTTP 404", "endpoint"]),
        (
            Answer::Full(404, "content-type: text/html\r\n", "<html>nothing here</html>".to_owned()),
            vec!["endpoint"],
        ),
        (Answer::Full(200, "content-type: text/html\r\n", "<html>welcome</html>".to_owned()), vec!["hint: "]),
    ] {
        let shown = format!("{answer:?}");
        let broken = BrokenS3::start(None, move |_, _| answer.clone());
        // The hook alone: the process that stays would try first, and leave it to the hook.
        let pitr = pitr.clone().env("PITR_ARCHIVE_READ_AHEAD", "0");
        let pitr = pitr.env("PITR_REPOSITORY_ENDPOINT", &broken.endpoint);
        refused(&pitr, &dir, &words);
        // Two commands, the first request of each.
        assert_eq!(broken.count(), 2, "{shown}");
    }
}

#[test]
fn what_may_pass_is_tried_again_within_the_budget() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (server, pitr) = data_directory(&dir, &with_bucket(&dir, &store, &store.bucket()));
    for answer in [Answer::Error(503, "SlowDown"), Answer::Bare(500), Answer::Error(429, "TooManyRequests")] {
        // Passes after the third request.
        let again = answer.clone();
        let broken =
            BrokenS3::start(
                Some(&store.endpoint),
                move |_, number| {
                    if number <= 2 { again.clone() } else { Answer::PassOn }
                },
            );
        let through = pitr.clone().env("PITR_REPOSITORY_ENDPOINT", &broken.endpoint);
        let out = dir.join("out").display().to_string();
        let done = through.run(["archive-get", ABSENT, &out]);
        done.expect_code(1);
        done.expect_said("trying again");
        // Never passes.
        let broken = BrokenS3::start(None, move |_, _| answer.clone());
        let through = pitr.clone().env("PITR_REPOSITORY_ENDPOINT", &broken.endpoint);
        refused(&through, &dir, &["is the store up"]);
        assert!(broken.count() > 2);
        let once = through.env("PITR_ARCHIVE_GET_RETRY", "0");
        once.run(["archive-get", ABSENT, &out]).expect_code(255);
        assert_eq!(broken.count(), 1, "a budget of 0 tries once");
    }
    // Nobody listens; a name that does not resolve.
    for endpoint in ["http://127.0.0.1:1", "http://no-such-host.invalid"] {
        refused(&pitr.clone().env("PITR_REPOSITORY_ENDPOINT", endpoint), &dir, &["is the store up"]);
    }
    drop(server);
}

#[test]
fn a_missing_segment_that_the_store_refuses_to_speak_about_is_not_absent() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (_server, pitr) = data_directory(&dir, &with_bucket(&dir, &store, &store.bucket()));
    // AWS answers so where a login may read but not list.
    let no_list = BrokenS3::start(Some(&store.endpoint), |first, _| {
        let missing = first.contains(ABSENT) || first.contains("list-type") || first.contains("history");
        if missing { Answer::Error(403, "AccessDenied") } else { Answer::PassOn }
    });
    let out = dir.join("out").display().to_string();
    let done = pitr.env("PITR_REPOSITORY_ENDPOINT", &no_list.endpoint).run(["archive-get", ABSENT, &out]);
    done.expect_code(255);
    done.expect_said("may they list");
}

#[test]
fn a_full_store_and_one_that_forgets_are_failures_of_the_push() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (_server, pitr) = data_directory(&dir, &with_bucket(&dir, &store, &store.bucket()));
    for (answer, words) in [
        (Answer::Bare(507), "make room, or raise the quota"),
        (Answer::Error(403, "QuotaExceeded"), "make room, or raise the quota"),
        // "Stored", it says, and has nothing.
        (
            Answer::Full(200, "etag: \"00000000000000000000000000000000\"\r\n", String::new()),
            "do not trust it with a backup",
        ),
    ] {
        let broken = BrokenS3::start(Some(&store.endpoint), move |first, _| {
            if first.starts_with("PUT ") { answer.clone() } else { Answer::PassOn }
        });
        let done = pitr
            .clone()
            .env("PITR_REPOSITORY_ENDPOINT", &broken.endpoint)
            .run(["archive-push", "pg_wal/00000002.history"]);
        done.expect_code(1);
        done.expect_said(words);
    }
}

#[test]
fn an_address_that_cannot_be_one_is_refused_before_anything_is_asked() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir).env("AWS_EC2_METADATA_DISABLED", "true");
    let out = dir.join("out").display().to_string();
    for (url, endpoint, words) in [
        ("s3://bucket/p", "localhost:9000", "the endpoint is http(s)://host[:port]"),
        ("s3://bucket?region=x", "", "a repository's URL has no parameters"),
        ("s3://AKIA:hunter2@bucket/p", "", "credentials do not belong into a repository's URL"),
        ("https://bucket.s3.amazonaws.com/p", "", "s3://bucket/prefix"),
        ("s3://b/p", "", "is not the name of a bucket"),
        ("s3://bucket/a/../b", "", "cannot be a prefix"),
        // Without an endpoint it is AWS, and AWS has regions.
        ("s3://bucket/p", "", "no region is set"),
    ] {
        let pitr = pitr.clone().repository(url).env("PITR_REPOSITORY_ENDPOINT", endpoint);
        let done = pitr.run(["archive-get", ABSENT, &out]);
        done.expect_code(255);
        done.expect_said(words);
        assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
    }
}
