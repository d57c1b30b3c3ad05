//! Ninety functions of one name, each of which waits in a macro of a library.

use futures::future::FutureExt;

use crate::cases::Cases;

async fn leaf() {
    tokio::sync::Notify::new().notified().await;
}

async fn number(_: u8) {
    leaf().await;
}

async fn fallible() -> Result<(), ()> {
    leaf().await;
    Ok(())
}

/// A module with a function `start`, or a type with such a method.
macro_rules! start {
    (fn $module:ident $($wait:tt)*) => {
        mod $module {
            use super::*;

            pub(super) async fn start(cases: Cases) {
                cases.waits(stringify!($module), "notify");
                $($wait)*
            }
        }
    };
    (impl $module:ident $($wait:tt)*) => {
        mod $module {
            use super::*;

            pub(super) struct Service;

            impl Service {
                pub(super) async fn start(self, cases: Cases) {
                    cases.waits(stringify!($module), "notify");
                    $($wait)*
                }
            }
        }
    };
}
start! { fn start_00
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_01
    tokio::join!(leaf(), number(2));
}
start! { fn start_02
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_03
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_04
    futures::join!(leaf(), number(4));
}
start! { fn start_05
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_06
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_07
    tokio::join!(leaf(), number(2));
}
start! { fn start_08
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_09
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_10
    futures::join!(leaf(), number(4));
}
start! { fn start_11
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_12
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_13
    tokio::join!(leaf(), number(2));
}
start! { fn start_14
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_15
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_16
    futures::join!(leaf(), number(4));
}
start! { fn start_17
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_18
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_19
    tokio::join!(leaf(), number(2));
}
start! { fn start_20
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_21
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_22
    futures::join!(leaf(), number(4));
}
start! { fn start_23
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_24
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_25
    tokio::join!(leaf(), number(2));
}
start! { fn start_26
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_27
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_28
    futures::join!(leaf(), number(4));
}
start! { fn start_29
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_30
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_31
    tokio::join!(leaf(), number(2));
}
start! { fn start_32
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_33
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_34
    futures::join!(leaf(), number(4));
}
start! { fn start_35
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_36
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_37
    tokio::join!(leaf(), number(2));
}
start! { fn start_38
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_39
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_40
    futures::join!(leaf(), number(4));
}
start! { fn start_41
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_42
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_43
    tokio::join!(leaf(), number(2));
}
start! { fn start_44
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_45
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_46
    futures::join!(leaf(), number(4));
}
start! { fn start_47
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_48
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_49
    tokio::join!(leaf(), number(2));
}
start! { fn start_50
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_51
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_52
    futures::join!(leaf(), number(4));
}
start! { fn start_53
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_54
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_55
    tokio::join!(leaf(), number(2));
}
start! { fn start_56
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_57
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_58
    futures::join!(leaf(), number(4));
}
start! { fn start_59
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_60
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_61
    tokio::join!(leaf(), number(2));
}
start! { fn start_62
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_63
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_64
    futures::join!(leaf(), number(4));
}
start! { fn start_65
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_66
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_67
    tokio::join!(leaf(), number(2));
}
start! { fn start_68
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_69
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_70
    futures::join!(leaf(), number(4));
}
start! { fn start_71
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_72
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_73
    tokio::join!(leaf(), number(2));
}
start! { fn start_74
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_75
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_76
    futures::join!(leaf(), number(4));
}
start! { fn start_77
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_78
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_79
    tokio::join!(leaf(), number(2));
}
start! { fn start_80
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_81
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_82
    futures::join!(leaf(), number(4));
}
start! { fn start_83
    let _ = futures::try_join!(fallible(), fallible());
}
start! { fn start_84
    tokio::select! { () = leaf() => {} () = number(1) => {} }
}
start! { impl start_85
    tokio::join!(leaf(), number(2));
}
start! { fn start_86
    let _ = tokio::try_join!(fallible(), fallible());
}
start! { fn start_87
    futures::select! { () = leaf().fuse() => {} () = number(3).fuse() => {} }
}
start! { impl start_88
    futures::join!(leaf(), number(4));
}
start! { fn start_89
    let _ = futures::try_join!(fallible(), fallible());
}

/// A task of each.
pub(crate) fn spawn(cases: &Cases) {
    cases.spawn(start_00::start);
    cases.spawn(|cases| start_01::Service.start(cases));
    cases.spawn(start_02::start);
    cases.spawn(start_03::start);
    cases.spawn(|cases| start_04::Service.start(cases));
    cases.spawn(start_05::start);
    cases.spawn(start_06::start);
    cases.spawn(|cases| start_07::Service.start(cases));
    cases.spawn(start_08::start);
    cases.spawn(start_09::start);
    cases.spawn(|cases| start_10::Service.start(cases));
    cases.spawn(start_11::start);
    cases.spawn(start_12::start);
    cases.spawn(|cases| start_13::Service.start(cases));
    cases.spawn(start_14::start);
    cases.spawn(start_15::start);
    cases.spawn(|cases| start_16::Service.start(cases));
    cases.spawn(start_17::start);
    cases.spawn(start_18::start);
    cases.spawn(|cases| start_19::Service.start(cases));
    cases.spawn(start_20::start);
    cases.spawn(start_21::start);
    cases.spawn(|cases| start_22::Service.start(cases));
    cases.spawn(start_23::start);
    cases.spawn(start_24::start);
    cases.spawn(|cases| start_25::Service.start(cases));
    cases.spawn(start_26::start);
    cases.spawn(start_27::start);
    cases.spawn(|cases| start_28::Service.start(cases));
    cases.spawn(start_29::start);
    cases.spawn(start_30::start);
    cases.spawn(|cases| start_31::Service.start(cases));
    cases.spawn(start_32::start);
    cases.spawn(start_33::start);
    cases.spawn(|cases| start_34::Service.start(cases));
    cases.spawn(start_35::start);
    cases.spawn(start_36::start);
    cases.spawn(|cases| start_37::Service.start(cases));
    cases.spawn(start_38::start);
    cases.spawn(start_39::start);
    cases.spawn(|cases| start_40::Service.start(cases));
    cases.spawn(start_41::start);
    cases.spawn(start_42::start);
    cases.spawn(|cases| start_43::Service.start(cases));
    cases.spawn(start_44::start);
    cases.spawn(start_45::start);
    cases.spawn(|cases| start_46::Service.start(cases));
    cases.spawn(start_47::start);
    cases.spawn(start_48::start);
    cases.spawn(|cases| start_49::Service.start(cases));
    cases.spawn(start_50::start);
    cases.spawn(start_51::start);
    cases.spawn(|cases| start_52::Service.start(cases));
    cases.spawn(start_53::start);
    cases.spawn(start_54::start);
    cases.spawn(|cases| start_55::Service.start(cases));
    cases.spawn(start_56::start);
    cases.spawn(start_57::start);
    cases.spawn(|cases| start_58::Service.start(cases));
    cases.spawn(start_59::start);
    cases.spawn(start_60::start);
    cases.spawn(|cases| start_61::Service.start(cases));
    cases.spawn(start_62::start);
    cases.spawn(start_63::start);
    cases.spawn(|cases| start_64::Service.start(cases));
    cases.spawn(start_65::start);
    cases.spawn(start_66::start);
    cases.spawn(|cases| start_67::Service.start(cases));
    cases.spawn(start_68::start);
    cases.spawn(start_69::start);
    cases.spawn(|cases| start_70::Service.start(cases));
    cases.spawn(start_71::start);
    cases.spawn(start_72::start);
    cases.spawn(|cases| start_73::Service.start(cases));
    cases.spawn(start_74::start);
    cases.spawn(start_75::start);
    cases.spawn(|cases| start_76::Service.start(cases));
    cases.spawn(start_77::start);
    cases.spawn(start_78::start);
    cases.spawn(|cases| start_79::Service.start(cases));
    cases.spawn(start_80::start);
    cases.spawn(start_81::start);
    cases.spawn(|cases| start_82::Service.start(cases));
    cases.spawn(start_83::start);
    cases.spawn(start_84::start);
    cases.spawn(|cases| start_85::Service.start(cases));
    cases.spawn(start_86::start);
    cases.spawn(start_87::start);
    cases.spawn(|cases| start_88::Service.start(cases));
    cases.spawn(start_89::start);
}
