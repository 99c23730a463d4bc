//! Pictures of a report as SVG: the same bytes for the same figures.

use std::fmt::Write as _;

use super::{ReadingKind, facts::ALL};
use super::{Report, TrainingFacts};

/// Width of every picture in its own units.
const WIDTH: f64 = 720.0;

/// A picture being written. Lengths have one decimal, so that the bytes are stable.
struct Picture {
    body: String,
    height: f64,
}

impl Picture {
    fn new(height: f64) -> Self {
        Self { body: String::new(), height }
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.body.write_fmt(what);
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.put(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
        ));
    }

    fn text(&mut self, anchor: &str, (x, y): (f64, f64), text: &str) {
        let text = escape(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        self.put(format_args!("<polyline class=\"{class}\" fill=\"none\" points=\""));
        for (x, y) in points {
            self.put(format_args!("{x:.1},{y:.1} "));
        }
        self.put(format_args!("\"/>"));
    }

    fn finish(self, title: &str) -> String {
        let (title, height) = (escape(title), self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
             role=\"img\" aria-label=\"{title}\"><title>{title}</title>{}</svg>",
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Draws the training loss by step, the dev loss at checkpoints, and the checkpoint chosen.
pub fn loss_curve(training: &TrainingFacts) -> String {
    const TOP: f64 = 16.0;
    const BOTTOM: f64 = 240.0;
    const LEFT: f64 = 56.0;
    const RIGHT: f64 = WIDTH - 16.0;
    let all = || training.losses.iter().chain(&training.checkpoints);
    let steps = all().map(|point| point.step).max().unwrap_or(1).max(1);
    let finite = all().map(|point| point.loss).filter(|loss| loss.is_finite());
    let most = finite.fold(0.0_f64, f64::max).max(1e-9);
    let ceiling = round_up(most);
    let x = |step: u64| LEFT + (RIGHT - LEFT) * step as f64 / steps as f64;
    let y = |loss: f64| BOTTOM - (BOTTOM - TOP) * loss.clamp(0.0, ceiling) / ceiling;
    let mut picture = Picture::new(280.0);
    for part in 0..=4_u32 {
        let loss = ceiling * f64::from(part) / 4.0;
        picture.line("grid", (LEFT, y(loss)), (RIGHT, y(loss)));
        picture.text("end", (LEFT - 8.0, y(loss) + 4.0), &format!("{loss:.2}"));
    }
    for part in 0..=4 {
        let step = steps * part / 4;
        picture.text("middle", (x(step), BOTTOM + 18.0), &step.to_string());
    }
    picture.text("middle", ((LEFT + RIGHT) / 2.0, BOTTOM + 34.0), "step");
    let shown = |points: &[super::LossPoint]| -> Vec<(f64, f64)> {
        let finite = points.iter().filter(|point| point.loss.is_finite());
        finite.map(|point| (x(point.step), y(point.loss))).collect()
    };
    picture.path("loss", shown(&training.losses).into_iter());
    picture.path("dev", shown(&training.checkpoints).into_iter());
    for point in training.checkpoints.iter().filter(|point| point.loss.is_finite()) {
        let chosen = point.step == training.chosen_step;
        let (class, radius) = if chosen { ("dev chosen", 6.0) } else { ("dev", 3.5) };
        picture.dot(class, (x(point.step), y(point.loss)), radius);
    }
    picture.finish(&format!("Loss of training run {}", training.run))
}

/// Rounds up to one, two or five times a power of ten.
fn round_up(value: f64) -> f64 {
    let mut unit = 1.0_f64;
    while unit < value {
        unit *= 10.0;
    }
    while unit / 10.0 >= value && unit > 1e-9 {
        unit /= 10.0;
    }
    [0.1, 0.2, 0.5].into_iter().map(|part| part * unit).find(|top| *top >= value).unwrap_or(unit)
}

/// Draws the share of exact answers of every arm, in both readings, over all cases.
pub fn interval_plot(report: &Report) -> String {
    const LEFT: f64 = 190.0;
    const RIGHT: f64 = WIDTH - 30.0;
    const ROW: f64 = 40.0;
    const TOP: f64 = 14.0;
    let arms = &report.facts.arms;
    let bottom = TOP + ROW * arms.len() as f64;
    let x = |share: f64| LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0);
    let mut picture = Picture::new(bottom + 36.0);
    for part in 0..=5_u32 {
        let share = f64::from(part) / 5.0;
        picture.line("grid", (x(share), TOP), (x(share), bottom));
        picture.text("middle", (x(share), bottom + 18.0), &format!("{share:.1}"));
    }
    for (row, arm) in arms.iter().enumerate() {
        let middle = TOP + ROW * (row as f64 + 0.5);
        picture.text("end", (LEFT - 12.0, middle + 4.0), &arm.label);
        for (reading, offset) in [(ReadingKind::Strict, -7.0), (ReadingKind::Lenient, 7.0)] {
            let Some(group) = arm.group(ALL, reading) else { continue };
            let (Some(rate), Some(interval)) = (group.exact.rate, group.exact.interval) else {
                continue;
            };
            let height = middle + offset;
            let class = reading.name();
            picture.line(class, (x(interval.low), height), (x(interval.high), height));
            for end in [interval.low, interval.high] {
                picture.line(class, (x(end), height - 4.0), (x(end), height + 4.0));
            }
            picture.dot(class, (x(rate), height), 4.0);
        }
    }
    let percent = report.facts.intervals.confidence * 100.0;
    picture.finish(&format!("Share of exact answers with {percent:.0} % intervals"))
}
