//! What is left out of the metadata.

use std::str::FromStr;

use super::ImageError;

/// What is left out of the metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strip {
    /// Everything is kept.
    #[default]
    None,
    /// The position: the GPS directory of EXIF, XMP packets and text that mention one, and of PNG the text that is not
    /// searched: all that is compressed, and raw profiles.
    Gps,
    /// EXIF, XMP, IPTC and text; the colour profile stays, because pixels mean nothing without it.
    All,
    /// These kinds.
    Listed(Kinds),
}

/// Kinds of metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// The EXIF block.
    pub exif: bool,
    /// The position, in EXIF and elsewhere.
    pub gps: bool,
    /// The colour profile.
    pub icc: bool,
    /// The IPTC records.
    pub iptc: bool,
    /// Text chunks of PNG.
    pub text: bool,
    /// The XMP packet.
    pub xmp: bool,
}

const EXPECTED: &str = "none, all, or some of exif, gps, icc, iptc, text, xmp, separated by commas";
const KEPT: &str = "some of exif, icc, iptc, text, xmp, separated by commas";

impl Strip {
    /// All kinds but the colour profile.
    const ALL: Kinds = Kinds { exif: true, gps: true, icc: false, iptc: true, text: true, xmp: true };

    /// What is left out of `strip`'s list, or all but what is in `keep`'s; without either nothing is left out.
    ///
    /// # Errors
    /// [`ImageError::Setting`] for a name that is of no kind, and if both are given.
    pub fn of(strip: Option<&str>, keep: Option<&str>) -> Result<Self, ImageError> {
        match (strip, keep) {
            (None, None) => Ok(Self::None),
            (Some(strip), None) => strip.parse(),
            (None, Some(keep)) => Self::all_but(keep),
            (Some(strip), Some(_)) => Err(ImageError::Setting {
                name: "strip",
                got: format!("{strip}, beside a list of what to keep"),
                expected: "one of the two",
            }),
        }
    }

    /// All but the kinds of this list, such as `exif,xmp`, and the colour profile.
    ///
    /// # Errors
    /// [`ImageError::Setting`] for a name that is of no kind. A position cannot be kept without what it is in.
    pub fn all_but(list: &str) -> Result<Self, ImageError> {
        let kept = kinds(list).filter(|kept| !kept.gps).ok_or_else(|| refuse("keep", list, KEPT))?;
        Ok(Self::Listed(Kinds {
            exif: !kept.exif,
            // It goes where it is in something that stays only if that is asked for.
            gps: false,
            icc: false,
            iptc: !kept.iptc,
            text: !kept.text,
            xmp: !kept.xmp,
        }))
    }

    /// The kinds that are left out.
    pub fn kinds(self) -> Kinds {
        match self {
            Self::None => Kinds::default(),
            Self::Gps => Kinds { gps: true, ..Kinds::default() },
            Self::All => Self::ALL,
            Self::Listed(kinds) => kinds,
        }
    }
}

fn refuse(name: &'static str, got: &str, expected: &'static str) -> ImageError {
    ImageError::Setting { name, got: got.into(), expected }
}

/// The kinds of a list; `None` if one is unknown, or there is none.
fn kinds(list: &str) -> Option<Kinds> {
    let mut kinds = Kinds::default();
    for name in list.split(',') {
        *match name.trim() {
            "exif" => &mut kinds.exif,
            "gps" => &mut kinds.gps,
            "icc" => &mut kinds.icc,
            "iptc" => &mut kinds.iptc,
            "text" => &mut kinds.text,
            "xmp" => &mut kinds.xmp,
            _ => return None,
        } = true;
    }
    Some(kinds)
}

impl FromStr for Strip {
    type Err = ImageError;

    /// `none`, `all`, `gps`, or a list such as `exif,xmp`.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        match text {
            "none" => Ok(Self::None),
            "gps" => Ok(Self::Gps),
            "all" => Ok(Self::All),
            list => kinds(list).map(Self::Listed).ok_or_else(|| refuse("strip", list, EXPECTED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_what_goes_and_what_stays() {
        let strip = |text: &str| Strip::of(Some(text), None).unwrap().kinds();
        assert_eq!(strip("exif, icc"), Kinds { exif: true, icc: true, ..Kinds::default() });
        assert_eq!(strip("gps"), Kinds { gps: true, ..Kinds::default() });
        assert_eq!(strip("all"), Kinds { exif: true, gps: true, icc: false, iptc: true, text: true, xmp: true });
        assert_eq!(strip("none"), Kinds::default());
        let keep = |text: &str| Strip::of(None, Some(text)).unwrap().kinds();
        assert_eq!(keep("exif,icc"), Kinds { iptc: true, text: true, xmp: true, ..Kinds::default() });
        for (strip, keep) in [(Some("exfi"), None), (Some(""), None), (None, Some("gps")), (Some("all"), Some("exif"))]
        {
            assert!(Strip::of(strip, keep).is_err(), "{strip:?} {keep:?}");
        }
    }
}
