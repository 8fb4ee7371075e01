//! What became of one spec. Pure.

use pgpair_api::status::Reason;
use serde_json::Value;
use strum::VariantNames as _;

/// How the operator took a pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Its objects are there.
    Built,
    /// It says that it cannot, with one of its reasons and a sentence.
    Refused(String),
    /// It is left alone, as it says.
    Paused,
    /// It is for another operator.
    OfAnotherClass,
    /// Nothing is told yet.
    Open,
}

/// Reasons that refuse; what else may be wrong with a pair without pods is no refusal of its spec.
const REFUSE: [Reason; 4] =
    [Reason::InvalidSpec, Reason::Undecodable, Reason::ApplyFailed, Reason::NameTaken];

/// Of a pair as the API server has it; `has_sets`: whether it has StatefulSets.
#[must_use]
pub fn judge(pair: &Value, has_sets: bool) -> Verdict {
    let spec = &pair["spec"];
    if spec["operatorClassName"].as_str().is_some_and(|class| !class.is_empty()) {
        return Verdict::OfAnotherClass;
    }
    let status = &pair["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let refused = conditions.filter(|c| c["type"] == "Degraded" && c["status"] == "True").find_map(|c| {
        let says = c["message"].as_str().is_some_and(|message| !message.trim().is_empty());
        let reason = c["reason"].as_str().filter(|reason| says && Reason::VARIANTS.contains(reason))?;
        REFUSE.iter().any(|refusing| refusing.as_str() == reason).then(|| reason.to_owned())
    });
    let is_of_this_spec = status["observedGeneration"] == pair["metadata"]["generation"];
    match refused {
        Some(reason) => Verdict::Refused(reason),
        None if has_sets && is_of_this_spec => Verdict::Built,
        None if spec["paused"] == true && is_of_this_spec => Verdict::Paused,
        None => Verdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(spec: Value, reason: &str, message: &str) -> Value {
        let condition = json!({"type": "Degraded", "status": "True", "reason": reason, "message": message});
        json!({"metadata": {"generation": 2}, "spec": spec, "status": {"observedGeneration": 2, "conditions": [condition]}})
    }

    #[test]
    fn a_pair_is_built_or_refused_in_words_of_ours_or_open() {
        let refused = Verdict::Refused("InvalidSpec".into());
        let far = "InstanceUnreachable";
        for (reason, message, has_sets, verdict) in [
            ("InvalidSpec", "spec.postgres.version 12 is not supported", false, refused.clone()),
            ("InvalidSpec", "of an object that was built before", true, refused),
            ("InvalidSpec", " ", false, Verdict::Open),
            ("Whatever", "it is wrong", false, Verdict::Open),
            (far, "instance a does not report", true, Verdict::Built),
            (far, "instance a does not report", false, Verdict::Open),
        ] {
            assert_eq!(judge(&pair(json!({}), reason, message), has_sets), verdict, "{reason} {message}");
        }
        assert_eq!(judge(&json!({"spec": {}}), false), Verdict::Open);
    }

    #[test]
    fn what_is_not_for_this_operator_or_not_now_is_no_fault() {
        let other = pair(json!({"operatorClassName": "x"}), "", "");
        assert_eq!(judge(&other, false), Verdict::OfAnotherClass);
        let paused = pair(json!({"paused": true}), "", "");
        assert_eq!(judge(&paused, false), Verdict::Paused);
        let before = json!({"metadata": {"generation": 3}, "spec": {"paused": true}, "status": {"observedGeneration": 2}});
        assert_eq!(judge(&before, false), Verdict::Open, "it says so of an earlier spec");
    }
}
