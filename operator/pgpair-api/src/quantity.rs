//! Quantities of bytes, in the words of Kubernetes.

/// Bytes of a quantity such as `16Mi`, `1.5Gi`, `64M` or `1048576`, rounded down; `None` if it is none, or more than fits.
/// The same forms as [`crate::spec`] admits: no exponents, no thousandths.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let fraction = part.parse::<u128>().ok()?.checked_mul(factor.into())? / scale;
    whole.checked_mul(factor)?.checked_add(u64::try_from(fraction).ok()?)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("1048576", 1 << 20),
            ("16Mi", 16 << 20),
            ("1.5Gi", 3 << 29),
            ("64M", 64_000_000),
            ("0.5Ki", 512),
            ("1Ti", 1 << 40),
            ("0.25k", 250),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "Mi",
            "1.",
            ".5Mi",
            "1.2.3",
            "1e3",
            "100m",
            "-1",
            "1 Mi",
            "1mi",
            "99999999999999999999",
            "99999999999Ti",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
