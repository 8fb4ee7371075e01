//! Curves as pictures: both axes logarithmic, because pairs grow tenfold. Pure.

use std::fmt::Write as _;

/// Width and height of a picture.
const SIZE: (f64, f64) = (640.0, 360.0);
/// Room for the words: left, right, top, bottom.
const ROOM: (f64, f64, f64, f64) = (64.0, 170.0, 36.0, 44.0);
/// Colours of the curves, in turn: told apart also by those who see no red.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// A curve: what it shows, and its points.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Number of pairs, and the value. Only values above 0 can be drawn.
    pub points: Vec<(f64, f64)>,
    /// Whether it is a limit and not a measure: a broken line.
    pub is_limit: bool,
}

/// The picture; `None` without a point to draw.
#[must_use]
pub fn draw(title: &str, curves: &[Curve]) -> Option<String> {
    let drawn = |(x, y): &&(f64, f64)| *x > 0.0 && *y > 0.0;
    let points: Vec<(f64, f64)> =
        curves.iter().flat_map(|c| c.points.iter().filter(drawn)).copied().collect();
    let across = Axis::around(points.iter().map(|p| p.0))?;
    let up = Axis::around(points.iter().map(|p| p.1))?;
    let (left, right, top, bottom) = (ROOM.0, SIZE.0 - ROOM.1, ROOM.2, SIZE.1 - ROOM.3);
    let x = |value: f64| left + across.part(value) * (right - left);
    let y = |value: f64| bottom - up.part(value) * (bottom - top);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{left}\" y=\"20\" font-size=\"14\">{title}</text>\n",
        SIZE.0, SIZE.1
    );
    for tick in across.ticks() {
        let at = x(tick);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"
        );
        let _ =
            writeln!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>", bottom + 16.0);
    }
    for tick in up.ticks() {
        let at = y(tick);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">pairs</text>",
        f64::midpoint(left, right),
        bottom + 34.0
    );
    for (n, curve) in curves.iter().filter(|c| c.points.iter().any(|p| drawn(&p))).enumerate() {
        let colour = if curve.is_limit { "#555" } else { COLOURS[n % COLOURS.len()] };
        let dash = if curve.is_limit { " stroke-dasharray=\"5 4\"" } else { "" };
        let line: Vec<String> =
            curve.points.iter().filter(drawn).map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            line.join(" ")
        );
        for (cx, cy) in line.iter().filter(|_| !curve.is_limit).filter_map(|p| p.split_once(',')) {
            let _ = writeln!(out, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
        let at = top + 8.0 + 18.0 * n as f64;
        let _ = writeln!(
            out,
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{at}\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            right + 10.0,
            right + 30.0
        );
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", right + 36.0, at + 4.0, curve.name);
    }
    Some(out + "</svg>\n")
}

/// From a power of ten to a power of ten.
struct Axis {
    from: i32,
    to: i32,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone) -> Option<Axis> {
        let least = values.clone().min_by(f64::total_cmp)?;
        let most = values.max_by(f64::total_cmp)?;
        let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Some(Axis { from, to: to.max(from + 1) })
    }

    fn part(&self, value: f64) -> f64 {
        (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)], is_limit: bool) -> Curve {
        Curve { name: "memory".into(), points: points.to_vec(), is_limit }
    }

    #[test]
    fn a_curve_goes_from_corner_to_corner_when_its_ends_are_powers_of_ten() {
        let picture = draw("MiB", &[curve(&[(100.0, 10.0), (10_000.0, 1000.0)], false)]).unwrap();
        assert!(picture.contains("points=\"64.0,316.0 470.0,36.0\""), "{picture}");
        assert!(picture.contains(">10000</text>") && picture.contains(">1000</text>"), "{picture}");
    }

    #[test]
    fn zero_is_not_drawn_and_nothing_gives_no_picture() {
        assert_eq!(draw("MiB", &[curve(&[(100.0, 0.0)], false)]), None);
        let picture = draw("MiB", &[curve(&[(100.0, 0.0), (1000.0, 5.0)], false)]).unwrap();
        assert_eq!(picture.matches("<circle").count(), 1);
        let limit = draw("MiB", &[curve(&[(100.0, 5.0), (1000.0, 5.0)], true)]).unwrap();
        assert_eq!((limit.matches("<circle").count(), limit.matches("dasharray").count()), (0, 2));
    }
}
