/* Assertions about the headers: a compile-time error each. */
#ifndef EXPECT_H
#define EXPECT_H

/* `name` is of this type. */
#define IS(name, type) _Static_assert(_Generic(&(name), type: 1, default: 0), #name)
/* A type has this other name. */
#define SAME(type, other)                                                                     \
    _Static_assert(_Generic((__typeof__(type) *)0, __typeof__(other) *: 1, default: 0), #type)
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
/* A member is at this offset, and of this type. */
#define MEMBER(type, member, offset, of)                                                      \
    _Static_assert(offsetof(type, member) == (offset), "offset of " #type "::" #member);      \
    _Static_assert(_Generic(&((type *)0)->member, __typeof__(of) *: 1, default: 0),           \
                   "type of " #type "::" #member)
#define VALUE(name, value) _Static_assert((name) == (value), #name)

#endif
