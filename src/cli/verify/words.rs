//! What a verification has found, for people and for scripts.

use serde_json::{Value, json};

use super::super::backup::quantity;
use super::super::say;
use super::Verified;
use crate::operation::verify::{Options, Problem, Report};

/// How many problems there are.
pub(super) fn problems(all: &[Verified]) -> usize {
    all.iter().map(|v| v.problems.len() + v.clusters.iter().map(|c| c.problems.len()).sum::<usize>()).sum()
}

/// One repository, in lines; with `quiet` its problems alone.
pub(super) fn show(verified: &Verified, quiet: bool) {
    for problem in &verified.problems {
        say(&text(problem));
    }
    for cluster in &verified.clusters {
        cluster.problems.iter().for_each(|problem| say(&text(problem)));
        if !quiet {
            cluster.notes.iter().for_each(|note| say(&format!("note: {note}")));
            say(&total(&verified.url, cluster));
        }
    }
    if verified.clusters.is_empty() && verified.error.is_none() && !quiet {
        say(&format!("{}: no cluster has been archived or backed up here yet", verified.url));
    }
}

/// The problem, what it costs, what to do.
fn text(problem: &Problem) -> String {
    let kind = serde_json::to_value(problem.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    let mut lines =
        vec![format!("PROBLEM {}: {}: {}", kind.unwrap_or_default(), problem.object, problem.what)];
    if problem.lost.is_empty() {
        lines.push("    lost: nothing".to_owned());
    }
    lines.extend(problem.lost.iter().map(|lost| format!("    lost: {lost}")));
    lines.push(format!("    to do: {}", problem.todo));
    lines.join("\n")
}

fn total(url: &str, cluster: &Report) -> String {
    let problems = match cluster.problems.len() {
        0 => "no problem".to_owned(),
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let resumed = match cluster.resumed.objects + cluster.resumed.bytes {
        0 => String::new(),
        _ => format!(
            " (and before it was interrupted {}, {})",
            objects(cluster.resumed.objects),
            quantity::bytes(cluster.resumed.bytes)
        ),
    };
    format!(
        "cluster {} ({}) in {url}: {}, {} verified{resumed}: {problems}",
        cluster.name,
        cluster.system_identifier,
        objects(cluster.checked.objects),
        quantity::bytes(cluster.checked.bytes),
    )
}

fn objects(count: u64) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

/// All repositories, as one document.
pub(super) fn document(all: &[Verified], options: &Options) -> Value {
    let failed = all.iter().any(|v| v.error.is_some());
    let repositories: Vec<Value> = all
        .iter()
        .map(|v| {
            let mut one = json!({ "url": v.url, "problems": v.problems, "clusters": v.clusters });
            if let (Some(error), Some(fields)) = (&v.error, one.as_object_mut()) {
                fields.insert("error".to_owned(), format!("{error:#}").into());
            }
            one
        })
        .collect();
    json!({
        "ok": !failed && problems(all) == 0,
        "mode": if options.quick { "quick" } else { "bytes" },
        "since": options.since,
        "repositories": repositories,
    })
}
