//! Pairs drawn at random from the schema of the definition: values of the sample and the schema, and what is hostile among them.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::faults::dice::Dice;

/// How much of an object is hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Nothing: values of the sample and within the bounds of the schema. Rules between fields may still refuse it.
    Plain,
    /// One value in a hundred.
    Near,
    /// One in five.
    Hostile,
}

/// One object to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// How it was drawn.
    pub manner: Manner,
    /// The object, as it is sent.
    pub object: Value,
}

/// Fields that lead away from what is tried: to another operator, to Secrets and volumes that are not there, to a pair that is left alone.
const RARE: [&str; 7] =
    ["operatorClassName", "ownerSecret", "superuserSecret", "paused", "serverSecret", "issuerRef", "adopt"];
/// Parameters that PostgreSQL has, and values that it may have.
const PARAMETERS: [&str; 8] = [
    "work_mem",
    "shared_buffers",
    "max_connections",
    "wal_level",
    "log_min_duration_statement",
    "random_page_cost",
    "jit",
    "statement_timeout",
];
const TEXTS: [&str; 28] = [
    "",
    " ",
    "\0",
    "\u{e9}",
    "\u{1f4a5}",
    "a\nb",
    "\r",
    "../../x",
    "$(reboot)",
    "`id`",
    "'; DROP TABLE x; --",
    "%n%s%p",
    "-",
    "--help",
    "\u{202e}abc",
    "null",
    "NaN",
    "1e9",
    "1e100",
    "-1",
    "16Mi ",
    "9223372036854775807Ei",
    "1.5.5Gi",
    "1n",
    "0x10",
    "{{ .Values }}",
    "a/b/c",
    "sha256:0",
];
/// Longest map or list that is hostile by its length.
const MANY: usize = 400;
/// Longest text that is hostile by its length: an object may have more than a megabyte.
const LONG: usize = 70_000;

/// Draws one object after the other, the same ones from the same seed.
#[derive(Debug, Clone)]
pub struct Generator {
    schema: Value,
    sample: Value,
    dice: Dice,
}

impl Generator {
    /// From the text of a definition and of a sample with every field.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn of(definition: &str, sample: &str, seed: u64) -> anyhow::Result<Generator> {
        let definition: Value = serde_saphyr::from_str(definition).context("the definition")?;
        let sample: Value = serde_saphyr::from_str(sample).context("the sample")?;
        let schema = definition
            .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
            .context("the definition has no schema of a spec")?;
        let sample = sample.get("spec").context("the sample has no spec")?;
        Ok(Generator { schema: schema.clone(), sample: sample.clone(), dice: Dice::new(seed) })
    }

    /// Object number `number`, whose name has it, unless the name is hostile.
    pub fn draw(&mut self, namespace: &str, number: usize) -> Drawn {
        let manner = match self.dice.roll(10) {
            0..4 => Manner::Plain,
            4..8 => Manner::Near,
            _ => Manner::Hostile,
        };
        let mut metadata = json!({"name": self.name(manner, number), "namespace": namespace});
        if manner == Manner::Hostile && self.dice.roll(4) == 0 {
            metadata["annotations"] = json!({"pgpair.dev/order": self.text(64)});
            metadata["labels"] = json!({"pgpair.dev/pair": self.text(63), "team": self.text(63)});
        }
        let object = json!({
            "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair", "metadata": metadata, "spec": self.spec(manner),
        });
        Drawn { manner, object }
    }

    /// A spec alone.
    pub fn spec(&mut self, manner: Manner) -> Value {
        let (schema, sample) = (self.schema.clone(), self.sample.clone());
        self.value(&schema, Some(&sample), manner)
    }

    fn name(&mut self, manner: Manner, number: usize) -> Value {
        if manner == Manner::Plain || self.dice.roll(12) != 0 {
            return json!(format!("s{number:05}"));
        }
        match self.dice.roll(6) {
            0 => json!(format!("s{number:05}{}", "x".repeat(34))),
            1 => json!(format!("s{number:05}{}", "x".repeat(35))),
            2 => json!(format!("s{number:05}.x")),
            3 => json!(format!("{number}s")),
            4 => json!(number),
            _ => json!(self.text(40)),
        }
    }

    fn value(&mut self, schema: &Value, sample: Option<&Value>, manner: Manner) -> Value {
        let is_hostile = match manner {
            Manner::Plain => false,
            Manner::Near => self.dice.roll(100) == 0,
            Manner::Hostile => self.dice.roll(5) == 0,
        };
        if is_hostile {
            return self.hostile(schema);
        }
        match schema["type"].as_str() {
            Some("object") if schema["properties"].is_object() => self.object(schema, sample, manner),
            Some("object") => self.map(schema, sample, manner),
            Some("array") => self.list(schema, sample, manner),
            Some("boolean") => json!(self.dice.roll(2) == 0),
            Some("integer") => self.integer(schema, sample),
            _ => self.word(schema, sample),
        }
    }

    fn object(&mut self, schema: &Value, sample: Option<&Value>, manner: Manner) -> Value {
        let mut out = Map::new();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, of_it) in schema["properties"].as_object().into_iter().flatten() {
            let one_in = if RARE.contains(&name.as_str()) { 40 } else { 2 };
            let is_wanted = required.contains(&json!(name)) || self.dice.roll(one_in) == 0;
            if is_wanted {
                let known = sample.and_then(|sample| sample.get(name));
                out.insert(name.clone(), self.value(of_it, known, manner));
            }
        }
        Value::Object(out)
    }

    fn map(&mut self, schema: &Value, sample: Option<&Value>, manner: Manner) -> Value {
        let mut out = sample.and_then(Value::as_object).cloned().unwrap_or_default();
        let most = schema["maxProperties"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(4);
        let is_of_parameters = most == 128;
        if manner != Manner::Plain && self.dice.roll(4) == 0 {
            let count = if self.dice.roll(4) == 0 { most } else { self.dice.roll(6) };
            for n in 0..count {
                let known = PARAMETERS.get(n).filter(|_| is_of_parameters);
                let key = match self.dice.roll(8) {
                    0 => self.text(63),
                    _ => known.map_or_else(|| format!("my.k{n}"), |name| (*name).to_owned()),
                };
                out.insert(key, self.value(&schema["additionalProperties"], None, manner));
            }
        }
        Value::Object(out)
    }

    fn list(&mut self, schema: &Value, sample: Option<&Value>, manner: Manner) -> Value {
        let of_sample = sample.and_then(Value::as_array);
        let first = of_sample.and_then(|all| all.first());
        if self.dice.roll(2) == 0
            && let Some(all) = of_sample
        {
            return json!(all);
        }
        let least = schema["minItems"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let count = least + self.dice.roll(3);
        Value::Array((0..count).map(|_| self.value(&schema["items"], first, manner)).collect())
    }

    /// Mostly the sample or the default, and often a bound.
    fn integer(&mut self, schema: &Value, sample: Option<&Value>) -> Value {
        let bound = |key: &str| schema[key].as_f64().map(|bound| bound as i64);
        let (least, most) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(1000));
        match self.dice.roll(6) {
            0 => json!(least),
            1 => json!(most),
            2 => json!(least + (most - least) / 2),
            _ => sample.cloned().or_else(|| schema.get("default").cloned()).unwrap_or(json!(least)),
        }
    }

    fn word(&mut self, schema: &Value, sample: Option<&Value>) -> Value {
        if let Some(words) = schema["enum"].as_array().filter(|words| !words.is_empty()) {
            return words[self.dice.roll(words.len())].clone();
        }
        sample.or_else(|| schema.get("default")).cloned().unwrap_or_else(|| json!("x1"))
    }

    fn hostile(&mut self, schema: &Value) -> Value {
        let most = schema["maxLength"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(256);
        match self.dice.roll(12) {
            0 => Value::Null,
            1 => json!(
                [i64::MIN, -1, 0, 1, i64::from(i32::MAX), i64::from(i32::MAX) + 1, i64::MAX]
                    [self.dice.roll(7)]
            ),
            2 => [json!(u64::MAX), json!(1e308), json!(0.5), json!(-0.0)][self.dice.roll(4)].clone(),
            3 => self.beyond(schema),
            4 => json!("x".repeat(most + self.dice.roll(2))),
            5 => json!("x".repeat(LONG)),
            6 => json!(
                (0..self.dice.roll(MANY))
                    .map(|n| (format!("k{n}"), format!("v{n}")))
                    .collect::<std::collections::BTreeMap<_, _>>()
            ),
            7 => json!((0..self.dice.roll(MANY)).map(|n| format!("v{n}")).collect::<Vec<_>>()),
            8 => (0..60).fold(json!({}), |inner, _| json!({"x": inner})),
            9 => json!({self.text(32): self.text(32)}),
            _ => json!(self.text(most)),
        }
    }

    /// A step beyond a bound of a number.
    fn beyond(&mut self, schema: &Value) -> Value {
        let beyond = [("minimum", -1.0), ("maximum", 1.0)][self.dice.roll(2)];
        schema[beyond.0].as_f64().map_or_else(|| json!(true), |bound| json!((bound + beyond.1) as i64))
    }

    /// No text of good intentions.
    fn text(&mut self, most: usize) -> String {
        let text = TEXTS[self.dice.roll(TEXTS.len())];
        match self.dice.roll(6) {
            0 => text.repeat(1 + self.dice.roll(40)).chars().take(most).collect(),
            1 => format!("{text}{}", TEXTS[self.dice.roll(TEXTS.len())]),
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pgpair_api::PgReplicaPair;

    use super::*;
    use crate::repository;

    fn generator(seed: u64) -> Generator {
        let read = |path: &str| std::fs::read_to_string(repository::root().join(path)).unwrap();
        Generator::of(&read("crds/pgreplicapair.yaml"), &read("docs/samples/full.yaml"), seed).unwrap()
    }

    fn drawn(seed: u64, count: usize) -> Vec<Drawn> {
        let mut generator = generator(seed);
        (0..count).map(|n| generator.draw("specs", n)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_objects_again_and_another_one_others() {
        assert_eq!(drawn(5, 50), drawn(5, 50));
        assert_ne!(drawn(5, 50), drawn(7, 50));
    }

    #[test]
    fn plain_objects_are_pairs_and_hostile_ones_reach_every_field() {
        let all = drawn(3, 600);
        for plain in all.iter().filter(|drawn| drawn.manner == Manner::Plain) {
            let pair = serde_json::from_value::<PgReplicaPair>(plain.object.clone());
            assert!(pair.is_ok(), "{pair:?}: {}", plain.object);
        }
        let fields = |drawn: &Drawn| {
            drawn.object["spec"].as_object().map_or(Vec::new(), |s| s.keys().cloned().collect())
        };
        let met: BTreeSet<String> = all.iter().flat_map(fields).collect();
        let schema = generator(3).schema;
        for field in schema["properties"].as_object().unwrap().keys() {
            assert!(met.contains(field), "{field} is never drawn");
        }
    }

    #[test]
    fn each_manner_is_drawn_and_so_are_bounds_and_texts_that_nobody_means_well_with() {
        let all = drawn(11, 1000);
        for manner in [Manner::Plain, Manner::Near, Manner::Hostile] {
            assert!(all.iter().filter(|drawn| drawn.manner == manner).count() > 100, "{manner:?}");
        }
        let text = serde_json::to_string(&all.iter().map(|drawn| &drawn.object).collect::<Vec<_>>()).unwrap();
        for part in [
            "\u{202e}abc",
            "9223372036854775807",
            "18446744073709551615",
            &json!(1e308).to_string(),
            &"x".repeat(LONG),
        ] {
            assert!(text.contains(part), "{part} is never drawn");
        }
        let bounds = json!({"minimum": 2.0, "maximum": 60.0});
        let mut generator = generator(11);
        let beyond: BTreeSet<String> = (0..50).map(|_| generator.beyond(&bounds).to_string()).collect();
        assert_eq!(beyond, ["1", "61"].map(str::to_owned).into());
    }
}
