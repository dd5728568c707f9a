//! The positions of the parts of the picture.

/// The width of the picture, in pixels.
pub(super) const WIDTH: f64 = 1200.0;
/// The empty border around it.
pub(super) const MARGIN: f64 = 28.0;
/// The top of the bars, below title and headings.
pub(super) const TOP: f64 = 152.0;
/// The height of the bars, unless many parts need more.
pub(super) const HEIGHT: f64 = 660.0;

/// The positions of the parts of the picture, from left to right.
pub(super) struct Positions {
    /// The left edge of the first domain's column, and the width of each.
    pub(super) columns: (f64, f64),
    /// The left and right edge of the guest's bar.
    pub(super) guest: (f64, f64),
    /// The left and right edge of the host's bar.
    pub(super) host: (f64, f64),
}

impl Positions {
    pub(super) fn of(columns: usize) -> Self {
        const BAR: f64 = 124.0;
        const LABELS: f64 = 112.0;
        let count = f64::from(u32::try_from(columns).unwrap_or(1).max(1));
        let width = (420.0 / count).clamp(62.0, 118.0);
        let guest = MARGIN + if columns == 0 { 0.0 } else { count * width } + LABELS;
        let host = WIDTH - MARGIN - LABELS - 30.0 - BAR;
        Self { columns: (MARGIN, width), guest: (guest, guest + BAR), host: (host, host + BAR) }
    }
}
