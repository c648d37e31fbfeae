use super::*;
use crate::report::html::document::tests::assert_well_formed;
use crate::report::html::tests::report;

/// Runs whose messages take from so many microseconds on.
fn side(name: &str, fastest_us: &[u64]) -> Side {
    let run = |(number, fastest): (usize, &u64)| Run {
        label: format!("run {}", number + 1),
        report: report(2, *fastest),
    };
    Side { name: name.to_owned(), runs: fastest_us.iter().enumerate().map(run).collect() }
}

fn verdicts(comparison: &Comparison) -> Vec<(&str, Verdict)> {
    comparison.measures.iter().map(|measure| (measure.name, measure.verdict)).collect()
}

#[test]
fn turns_are_balanced_against_drift() {
    use Turn::*;
    assert_eq!(turns(3), [A, B, B, A, A, B]);
    let place =
        |turn| turns(4).iter().enumerate().filter(|(_, one)| **one == turn).map(|(at, _)| at).sum::<usize>();
    assert_eq!(place(A), place(B));
}

#[test]
fn the_faster_side_is_better_at_latency_and_the_same_at_throughput() {
    let comparison =
        Comparison::of(&side("quick", &[100, 101, 102, 103]), &side("slow", &[400, 420, 410, 405]));
    let verdicts = verdicts(&comparison);
    for name in ["publish p50", "publish p99", "end to end p50", "end to end p99"] {
        assert!(verdicts.contains(&(name, Verdict::Better)), "{name}: {verdicts:?}");
    }
    for name in ["published", "received", "broker CPU per message"] {
        assert!(verdicts.contains(&(name, Verdict::Same)), "{name}: {verdicts:?}");
    }
    assert!(verdicts.iter().all(|(name, _)| *name != "publish p99.99"), "too few samples for it");
    assert!(comparison.headline().starts_with("quick is better than slow: publish p50, publish p99"));
    assert!(comparison.cautions.is_empty(), "{:?}", comparison.cautions);

    let text = comparison.text();
    assert!(text.contains("publish p50, µs") && text.contains("better"), "{text}");
    let page = comparison.html();
    assert_well_formed(&page);
    for part in ["quick against slow", "publish p50: A is better", "quick, 4 runs", "class=\"l c1 thin\""] {
        assert!(page.contains(part), "'{part}' is missing");
    }
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["measures"][0]["verdict"], "better");
    assert!(json["measures"][0]["ratio"]["high"].as_f64().unwrap() < 1.0);
}

#[test]
fn overlapping_sides_cannot_be_told_apart() {
    let comparison = Comparison::of(&side("a", &[100, 150, 200, 250]), &side("b", &[120, 140, 210, 240]));
    assert!(verdicts(&comparison).contains(&("publish p50", Verdict::CannotTell)));
    assert_eq!(comparison.headline(), "cannot tell a from b");
}

#[test]
fn three_runs_are_no_verdict_and_say_so() {
    let comparison = Comparison::of(&side("a", &[100; 3]), &side("b", &[400; 4]));
    assert!(comparison.measures.iter().all(|measure| measure.verdict == Verdict::CannotTell));
    assert!(comparison.cautions[0].starts_with("3 sound runs on one side"), "{:?}", comparison.cautions);
    assert!(comparison.text().contains("too few runs"));
}

#[test]
fn runs_that_are_no_evidence_are_left_out_with_a_sentence() {
    let (mut a, b) = (side("a", &[100; 5]), side("b", &[400; 5]));
    a.runs[0].report.scheduling.warning = Some("one message, the slowest, was the generator's".to_owned());
    a.runs[1].report.scheduling.warning = Some("the generator itself was late".to_owned());
    a.runs[1].report.scheduling.verdict.generator_was_the_bottleneck = true;
    a.runs[2].report.faults = vec!["3 acknowledged messages were not received".to_owned()];
    let comparison = Comparison::of(&a, &b);
    assert_eq!((comparison.a.runs, comparison.b.runs), (3, 5));
    assert_eq!(comparison.excluded.len(), 2);
    assert!(comparison.excluded[0].starts_with("a, run 2: the generator"), "{:?}", comparison.excluded);
    assert!(comparison.html().contains("not counted: a, run 3: 3 acknowledged"));
}

#[test]
fn different_questions_are_remarked() {
    let (mut a, b) = (side("a", &[100; 4]), side("b", &[400; 4]));
    a.runs[0].report.configuration.load = "closed loop".to_owned();
    let comparison = Comparison::of(&a, &b);
    assert!(comparison.cautions[0].starts_with("runs differ in their load: closed loop / open loop"));
}

#[test]
fn nothing_to_compare_is_no_failure() {
    let none = Side { name: "none".into(), runs: vec![] };
    let comparison = Comparison::of(&none, &none);
    assert_well_formed(&comparison.html());
    assert!(comparison.text().contains("cannot tell none from none"));
}
