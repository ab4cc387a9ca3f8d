//! What is configured wrongly is said, with the place and the nearest right word; a hook never goes on without it.

use crate::support::{Pitr, Server, TestDir};

const SEGMENT: &str = "000000010000000000000001";

#[test]
fn a_wrong_configuration_stops_every_verb_and_is_never_absence() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let out = dir.join("out").display().to_string();
    let repository = format!("[[repository]]\nurl = 'file://{}'\n", dir.join("repo").display());
    for (text, words) in [
        (
            "[archive]\nspol = '/x'\n",
            "line 2: there is no key \"spol\" in [archive]; did you mean \"spool\"?",
        ),
        (
            "[archive]\nget-retry = 'soon'\n",
            "line 2: \"archive.get-retry\" must be a whole number from 0 to 86400",
        ),
        ("[archive]\nstrict = 1\n", "line 2: \"archive.strict\" must be true or false"),
        ("[archve]\n", "line 1: there is no section [archve]; did you mean [archive]?"),
        ("cluster = ''\n", "cluster name"),
        ("not toml", "line 1: "),
        ("[[repository]]\nurl = '/var/lib/pitr'\n", "file:///var/lib/pitr"),
    ] {
        let text = if text.starts_with("[[") { text.to_owned() } else { format!("{text}{repository}") };
        let file = dir.write("wrong.toml", &text).display().to_string();
        let pitr = Pitr::new(&dir).without("PITR_REPOSITORY");
        for (arguments, code) in [
            (vec!["archive-get", SEGMENT, &out], 255),
            (vec!["archive-push", "pg_wal/000000010000000000000001"], 1),
            (vec!["info"], 1),
        ] {
            let done = pitr.run(["--config", &file].into_iter().chain(arguments));
            done.expect_code(code);
            done.expect_said(words);
            assert_eq!(done.stdout, "");
        }
    }
}

#[test]
fn a_file_that_was_named_and_is_not_there_is_an_error() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let out = dir.join("out").display().to_string();
    let pitr = pitr.env("PITR_CONFIG", "/nonexistent.toml");
    let done = pitr.run(["archive-get", SEGMENT, &out]);
    done.expect_code(255);
    done.expect_said("there is no configuration file /nonexistent.toml");
    pitr.run(["info"]).expect_code(1);
    let pitr = pitr.without("PITR_CONFIG");
    pitr.run(["--config=/nonexistent.toml", "archive-get", SEGMENT, &out]).expect_code(255);
}

#[test]
fn the_hooks_keep_their_exit_codes_however_they_are_mistyped() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let out = dir.join("out").display().to_string();
    for line in [
        "archive-gett F P",
        "archive_get F P",
        "get F P",
        "archive-get",
        "archive-get F",
        "archive-get F P more",
        "archive-get --bogus F P",
        "archive-get -h F P",
        "--bogus archive-get F P",
        "--confg=/x archive-get F P",
        "--cluster archive-get F P",
        "--cluster=../x archive-get F P",
        "archive-get P F",
        "archive-push pg_wal/RECOVERYXLOG",
        "archive-push F pg_wal/RECOVERYXLOG",
        "--bogus",
        "",
    ] {
        let words = line.split_whitespace().map(|word| match word {
            "F" => SEGMENT,
            "P" => &out,
            other => other,
        });
        let done = pitr.run(words);
        assert_eq!(done.code, Some(255), "pitr {line}: {}{}", done.stdout, done.stderr);
    }
    for line in [
        "archive-push",
        "archive-push --bogus pg_wal/X",
        "--bogus archive-push pg_wal/X",
        "archive-push a/b c/d",
    ] {
        let done = pitr.run(line.split_whitespace());
        assert_eq!(done.code, Some(2), "pitr {line}: {}{}", done.stdout, done.stderr);
    }
    // A server in recovery that was given `pitr archive-push %f`.
    dir.write("recovery.signal", "");
    pitr.run(["archive-push", SEGMENT]).expect_code(255);
    for line in ["--help", "archive-get --help", "--version", "help archive-push"] {
        pitr.ok(line.split_whitespace());
    }
}

#[test]
fn variables_set_what_the_file_does_not_and_beat_it() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let file = format!(
        "cluster = 'of-file'\n[[repository]]\nurl = 'file://{}'\n[archive]\nspool = '{}'\n",
        dir.join("repo").display(),
        dir.join("spool").display()
    );
    let file = dir.write("pitr.toml", file).display().to_string();
    let pitr =
        Pitr::new(&dir).without("PITR_REPOSITORY").without("PITR_ARCHIVE_SPOOL").env("PITR_CONFIG", &file);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let segment = server.archive_now();
    assert!(dir.join("repo/of-file/cluster.json").exists());
    assert!(dir.join("spool/known-repositories").exists());
    let out = dir.join("out").display().to_string();
    let get = |pitr: &Pitr| pitr.run(["archive-get", &segment, &out]);
    get(&pitr).expect_code(0);
    get(&pitr.clone().env("PITR_CLUSTER", "of-env")).expect_code(255);
    get(&pitr.clone().env("PITR_CLUSTER", "of-env").env("PITR_ARCHIVE_SPOL", "x"))
        .expect_said("PITR_ARCHIVE_SPOOL");
    pitr.clone()
        .env("PITR_CLUSTER", "of-env")
        .run(["--cluster=of-file", "archive-get", &segment, &out])
        .expect_code(0);
    // One not to be understood is refused, in the words of its variable.
    let wrong = get(&pitr.clone().env("PITR_ARCHIVE_GET_RETRY", "soon"));
    wrong.expect_code(255);
    wrong.expect_said("PITR_ARCHIVE_GET_RETRY must be a whole number from 0 to 86400");
}
