use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    global: Global,
}

/// As one command line, some variables and a file (`None`: there is none) would set it.
fn settings(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let default = dir.path().join("pitr.toml");
    if let Some(text) = file {
        std::fs::write(&default, text).unwrap();
    }
    // By hand what clap does with `env`: the variables of this process are not to be changed.
    let mut line: Vec<String> =
        std::iter::once("pitr").chain(flags.iter().copied()).map(str::to_owned).collect();
    for (variable, flag) in [("PITR_REPOSITORY", "--repository"), ("PITR_CLUSTER", "--cluster")] {
        if let Some((_, value)) = variables.iter().find(|(name, _)| *name == variable)
            && !flags.iter().any(|f| f.starts_with(flag))
        {
            line.push(format!("{flag}={value}"));
        }
    }
    let global = Line::try_parse_from(line).unwrap().global;
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::put_together(&global, variables, &default).map_err(|e| format!("{e:#}"))
}

fn refused(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> String {
    match settings(flags, variables, file) {
        Ok(_) => panic!("accepted: {flags:?} {variables:?} {file:?}"),
        Err(said) => said,
    }
}

const FILE: &str = "cluster = 'of-file'\ntimezone = 'Europe/Berlin'\n[[repository]]\nurl = 's3://bucket/p'\n\
                    endpoint = 'https://of-file'\nregion = 'of-file'\n[postgres]\nconninfo = 'host=of-file'\n\
                    [archive]\ncompression-level = 5\npush-retry = 7\nspool = '/of-file'\n";

#[test]
fn a_first_run_needs_one_variable() {
    let found = settings(&[], &[("PITR_REPOSITORY", "file:///r")], None).unwrap();
    assert_eq!(found.repositories.len(), 1);
    assert_eq!(found.repositories[0].0, "file:///r");
    assert_eq!(found.cluster.as_str(), "main");
    assert_eq!((found.level, found.strict, found.config), (3, false, None));
    assert_eq!((found.push_retry.as_secs(), found.get_retry.as_secs()), (60, 60));
    let said = refused(&[], &[], None);
    assert!(said.contains("PITR_REPOSITORY") && said.contains("[[repository]]"), "{said}");
}

#[test]
fn a_flag_beats_a_variable_beats_the_file() {
    let found = settings(&[], &[], Some(FILE)).unwrap();
    let (url, options) = &found.repositories[0];
    assert_eq!((url.as_str(), options.endpoint.as_deref()), ("s3://bucket/p", Some("https://of-file")));
    assert_eq!(found.cluster.as_str(), "of-file");
    assert_eq!(found.conninfo.as_deref(), Some("host=of-file"));
    assert_eq!(found.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!((found.level, found.push_retry.as_secs(), found.get_retry.as_secs()), (5, 7, 60));
    assert_eq!(found.spool, Path::new("/of-file"));
    assert!(found.config.is_some());

    let variables = [
        ("PITR_CLUSTER", "of-env"),
        ("PITR_REPOSITORY_REGION", "of-env"),
        ("PITR_POSTGRES_CONNINFO", "host=of-env"),
        ("PITR_ARCHIVE_COMPRESSION_LEVEL", "-1"),
        ("PITR_ARCHIVE_GET_RETRY", "0"),
        ("PITR_TIMEZONE", "UTC"),
    ];
    let found = settings(&[], &variables, Some(FILE)).unwrap();
    assert_eq!(found.cluster.as_str(), "of-env");
    assert_eq!(found.repositories[0].1.region.as_deref(), Some("of-env"));
    assert_eq!(found.repositories[0].1.endpoint.as_deref(), Some("https://of-file"));
    assert_eq!(found.conninfo.as_deref(), Some("host=of-env"));
    assert_eq!((found.level, found.push_retry.as_secs(), found.get_retry.as_secs()), (-1, 7, 0));
    assert_eq!(found.timezone.as_deref(), Some("UTC"));

    let found = settings(&["--cluster=of-flag"], &variables, Some(FILE)).unwrap();
    assert_eq!(found.cluster.as_str(), "of-flag");
}

#[test]
fn a_repository_chosen_by_its_url_keeps_what_the_file_says_about_it() {
    let found = settings(&["--repository=s3://bucket/p"], &[], Some(FILE)).unwrap();
    assert_eq!(found.repositories[0].1.endpoint.as_deref(), Some("https://of-file"));
    let found = settings(&["--repository=s3://other/p"], &[], Some(FILE)).unwrap();
    assert_eq!(found.repositories.len(), 1);
    assert_eq!(found.repositories[0].1.endpoint, None);
}

#[test]
fn several_repositories_are_all_there_and_never_mixed_up() {
    let two = "[[repository]]\nurl = 's3://one/p'\n[[repository]]\nurl = 'file:///two'\n";
    let found = settings(&[], &[], Some(two)).unwrap();
    let urls: Vec<&str> = found.repositories.iter().map(|(url, _)| url.as_str()).collect();
    assert_eq!(urls, ["s3://one/p", "file:///two"]);
    let said = refused(&[], &[("PITR_REPOSITORY_REGION", "x")], Some(two));
    assert!(said.contains("2 repositories") && said.contains("repository.region"), "{said}");
    let same = "[[repository]]\nurl = 's3://k:hunter2@one/p'\n[[repository]]\nurl = 's3://k:hunter2@one/p'\n";
    let said = refused(&[], &[], Some(same));
    assert!(said.contains("two [[repository]]") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_file_that_was_named_must_be_there_and_one_that_is_there_must_be_readable() {
    let said = refused(&["--config=/nonexistent.toml"], &[("PITR_REPOSITORY", "file:///r")], None);
    assert!(said.contains("there is no configuration file /nonexistent.toml"), "{said}");
    // A default that cannot be read is not one that is absent.
    let dir = tempfile::tempdir().unwrap();
    let global = Line::try_parse_from(["pitr", "--repository=file:///r"]).unwrap().global;
    let below_a_file = dir.path().join("file/pitr.toml");
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert!(Settings::put_together(&global, std::iter::empty(), &below_a_file).is_err());
    assert!(Settings::put_together(&global, std::iter::empty(), dir.path()).is_err());
}

#[test]
fn a_complaint_names_the_file_the_line_and_the_nearest_key() {
    let said = refused(&[], &[], Some("[[repository]]\nurl = 'file:///r'\n[archive]\nspol = '/x'\n"));
    assert!(said.contains("pitr.toml") && said.contains("line 4") && said.contains("\"spool\""), "{said}");
    let said = refused(&[], &[("PITR_CLUSTER", "main"), ("PITR_ARCHIVE_SPOL", "x")], Some(FILE));
    assert!(said.contains("PITR_ARCHIVE_SPOOL"), "{said}");
    let said = refused(&[], &[], Some(&FILE.replace("of-file'\ntimezone", "../x'\ntimezone")));
    assert!(said.contains("../x"), "{said}");
}
