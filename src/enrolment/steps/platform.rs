//! The kinds of devices that there are steps for.

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::enrolment) enum Platform {
    Iphone,
    Mac,
    Android,
    Windows,
    Linux,
}

impl Platform {
    pub(super) const ALL: [Self; 5] = [Self::Iphone, Self::Android, Self::Mac, Self::Windows, Self::Linux];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Iphone => "iPhone, iPad",
            Self::Mac => "Mac",
            Self::Android => "Android",
            Self::Windows => "Windows",
            Self::Linux => "Linux, Firefox",
        }
    }

    /// What a browser with this `User-Agent` may run on. An iPad says that it is a Mac.
    pub(in crate::enrolment) fn of_user_agent(user_agent: &str) -> &'static [Self] {
        let says = |word: &str| user_agent.contains(word);
        if says("iPhone") || says("iPad") || says("iPod") {
            &[Self::Iphone]
        } else if says("Macintosh") {
            &[Self::Mac, Self::Iphone]
        } else if says("Android") {
            &[Self::Android]
        } else if says("Windows") {
            &[Self::Windows]
        } else if says("Linux") || says("X11") {
            &[Self::Linux]
        } else {
            &[]
        }
    }
}
