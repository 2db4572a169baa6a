//! The schema as values: types, commands, events, all linked by [`TypeId`].

/// Index of a type in [`Schema`](super::Schema).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(super) usize);

/// Notes on a definition, member or value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The default in force, as text, where one can be told.
    pub default: Option<&'static str>,
    /// Feature flags shown by `query-qmp-schema` (`deprecated`, `unstable`).
    pub features: Vec<&'static str>,
    /// Where it comes from if not from every QEMU 10.0: a later release, `build`, or `netdevd`.
    pub origin: Option<&'static str>,
    /// The command may run out of band.
    pub oob: bool,
    /// The command has further members, which the schema does not know: it checks its arguments itself.
    pub open: bool,
}

/// A basic type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// A string.
    Str,
    /// A boolean.
    Bool,
    /// A number, whole or not.
    Number,
    /// Null.
    Null,
    /// Anything.
    Any,
    /// A signed integer of so many bits; QEMU's plain `int` has 64.
    Int(u32),
    /// An unsigned integer of so many bits.
    Uint(u32),
    /// A number of bytes; 64 bits, unsigned, suffixes K to E on command lines.
    Size,
}

impl Builtin {
    /// All basic types by name.
    pub const ALL: [(&'static str, Self); 15] = [
        ("str", Self::Str),
        ("bool", Self::Bool),
        ("number", Self::Number),
        ("null", Self::Null),
        ("any", Self::Any),
        ("int", Self::Int(64)),
        ("int8", Self::Int(8)),
        ("int16", Self::Int(16)),
        ("int32", Self::Int(32)),
        ("int64", Self::Int(64)),
        ("uint8", Self::Uint(8)),
        ("uint16", Self::Uint(16)),
        ("uint32", Self::Uint(32)),
        ("uint64", Self::Uint(64)),
        ("size", Self::Size),
    ];

    /// Whether it is an integer of any kind.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Size)
    }
}

/// A type.
#[derive(Debug, Clone)]
pub struct Type {
    /// Its name in the schema; never shown on the wire except for basic types.
    pub name: String,
    /// What it is for; empty for types that need no words.
    pub words: String,
    /// Its marks.
    pub marks: Marks,
    /// What it is made of.
    pub kind: Kind,
}

/// What a type is made of.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A basic type.
    Builtin(Builtin),
    /// One of several strings.
    Enum(Vec<EnumValue>),
    /// A list.
    Array(TypeId),
    /// An object.
    Object(Object),
}

/// A value of an enumeration.
#[derive(Debug, Clone)]
pub struct EnumValue {
    /// The string.
    pub name: &'static str,
    /// What it means; may be empty.
    pub words: &'static str,
    /// Its marks.
    pub marks: Marks,
}

/// Members of an object, and what a tag member adds to them.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Members in the order in which they are checked, those of the base first.
    pub members: Vec<Member>,
    /// For a union: which member selects, and what.
    pub union: Option<Union>,
}

/// The variable part of a union.
#[derive(Debug, Clone)]
pub struct Union {
    /// Index of the tag in [`Object::members`].
    pub tag: usize,
    /// One entry a value of the tag's enumeration: the type that adds its members, if any.
    pub variants: Vec<Option<TypeId>>,
}

/// A member of an object.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: TypeId,
    /// It may be left out.
    pub optional: bool,
    /// What it is for.
    pub words: &'static str,
    /// Its marks.
    pub marks: Marks,
}

/// A command.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub words: String,
    /// Type of its arguments, an object.
    pub args: TypeId,
    /// Type of its answer.
    pub returns: TypeId,
    /// Its marks.
    pub marks: Marks,
}

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// What happened.
    pub words: String,
    /// Type of its data, an object.
    pub data: TypeId,
    /// Its marks.
    pub marks: Marks,
}
