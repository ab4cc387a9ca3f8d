use super::*;

fn with(explicit: &str, env: &[(&str, &str)]) -> Result<ConnInfo, ConnInfoError> {
    let lookup = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
    ConnInfo::resolve((!explicit.is_empty()).then_some(explicit), &lookup)
}

fn show(info: &ConnInfo) -> Vec<String> {
    info.hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn pairs_are_read_with_quotes_and_escapes() {
    let info = with(r"host = 'a b' user='it\'s' password=p\ w port=6000 application_name = x", &[]).unwrap();
    assert_eq!(show(&info), ["a b:6000"]);
    assert_eq!(info.user, "it's");
    assert_eq!(info.password.unwrap().reveal(), "p w");
    assert_eq!(info.application_name, "x");
}

#[test]
fn uris_are_read_with_percent_signs_several_hosts_and_parameters() {
    let info = with(
        "postgres://me%40x:s%3Acret@one:1,[::1]:2,three/db%20name?sslmode=require&connect_timeout=1",
        &[],
    )
    .unwrap();
    assert_eq!(show(&info), ["one:1", "[::1]:2", "three:5432"]);
    assert_eq!((info.user.as_str(), info.database()), ("me@x", "db name"));
    assert_eq!(info.password.as_ref().unwrap().reveal(), "s:cret");
    assert_eq!(info.sslmode, SslMode::Require);
    assert_eq!(info.connect_timeout, Some(Duration::from_secs(2)));
}

#[test]
fn a_uri_may_name_a_socket_directory() {
    for uri in ["postgresql://%2Fvar%2Frun/db", "postgresql:///db?host=/var/run"] {
        let info = with(uri, &[("PGUSER", "u")]).unwrap();
        assert_eq!(show(&info), ["/var/run/.s.PGSQL.5432"], "{uri}");
    }
}

#[test]
fn without_a_host_the_usual_socket_directories_are_tried() {
    let info = with("", &[("PGPORT", "5433")]).unwrap();
    assert_eq!(show(&info), ["/var/run/postgresql/.s.PGSQL.5433", "/tmp/.s.PGSQL.5433"]);
}

#[test]
fn explicit_wins_over_service_and_service_over_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    std::fs::write(&file, "[s]\nhost=service\nport=2\nuser=service\n").unwrap();
    let env = [
        ("PGSERVICEFILE", file.to_str().unwrap()),
        ("PGHOST", "environment"),
        ("PGUSER", "environment"),
        ("PGAPPNAME", "environment"),
    ];
    let info = with("service=s host=explicit", &env).unwrap();
    assert_eq!(show(&info), ["explicit:2"]);
    assert_eq!((info.user.as_str(), info.application_name.as_str()), ("service", "environment"));
    let missing = with("service=t", &env).unwrap_err();
    assert_eq!(missing.to_string(), "no service file defines the service \"t\"");
}

#[test]
fn database_url_takes_the_place_of_an_explicit_string() {
    let env = [("DATABASE_URL", "postgres://u@url"), ("PGHOST", "other"), ("PGPORT", "7")];
    assert_eq!(show(&with("", &env).unwrap()), ["url:7"]);
    assert_eq!(show(&with("host=explicit", &env).unwrap()), ["explicit:7"]);
}

#[test]
fn unknown_keys_and_checks_that_cannot_be_made_are_refused() {
    for (text, expected) in [
        ("hots=x", "\"hots\" is not a connection parameter"),
        ("postgres://h/?hots=x", "\"hots\" is not a connection parameter"),
        ("sslcrl=/x", "the connection parameter \"sslcrl\" is not supported with this value"),
        ("gssencmode=require", "the connection parameter \"gssencmode\" is not supported with this value"),
        ("user", "the connection string cannot be read: a word is not followed by \"=\""),
        ("user='x", "the connection string cannot be read: a quoted value is not closed"),
        ("port=0", "the connection parameter \"port\" cannot be \"0\": expected a number from 1 to 65535"),
        ("host=a,b port=1,2,3", "2 hosts, but 3 values of \"port\""),
        (
            "sslmode=on",
            "the connection parameter \"sslmode\" cannot be \"on\": expected disable, allow, prefer, require, \
             verify-ca or verify-full",
        ),
    ] {
        assert_eq!(with(text, &[]).unwrap_err().to_string(), expected, "{text}");
    }
    assert!(with("host=h gssencmode=disable client_encoding=UTF8 user=u", &[]).is_ok());
}

#[test]
fn the_systems_authorities_are_only_taken_with_the_strictest_mode() {
    assert_eq!(with("sslrootcert=system user=u", &[]).unwrap().sslmode, SslMode::VerifyFull);
    assert!(with("sslrootcert=system sslmode=require user=u", &[]).is_err());
    assert!(with("sslnegotiation=direct user=u", &[]).is_err());
}

#[test]
fn the_passfile_knows_replication_and_sockets_by_their_own_names() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".pgpass");
    std::fs::write(&file, "localhost:5432:*:u:socket\nh:1:replication:u:repl\nh:1:d:u:sql\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let home = [("HOME", dir.path().to_str().unwrap())];
    let ask = |text: &str, replication| {
        let info = with(text, &home).unwrap();
        info.password_for(&info.hosts[0], replication).unwrap().map(|p| p.reveal().to_owned())
    };
    assert_eq!(ask("user=u", true).unwrap(), "socket");
    assert_eq!(ask("host=h port=1 user=u dbname=d", true).unwrap(), "repl");
    assert_eq!(ask("host=h port=1 user=u dbname=d", false).unwrap(), "sql");
    assert_eq!(ask("host=h port=1 user=u dbname=e", false), None);
    assert_eq!(ask("host=h port=1 user=u password=given", false).unwrap(), "given");
}

#[test]
fn a_password_is_never_shown() {
    let info = with("postgres://u:topsecret@h/d", &[]).unwrap();
    assert!(!format!("{info:?} {info}").contains("topsecret"));
}
