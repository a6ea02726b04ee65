"""ONTAP's generic GET parameters: filters, `fields`, pages."""

from fnmatch import fnmatchcase
from urllib.parse import urlencode

GENERIC = {"fields", "max_records", "return_timeout", "return_records", "order_by"}


def dig(record, name):
    """The value at a dotted name, or None."""
    for part in name.split("."):
        if not isinstance(record, dict) or part not in record:
            return None
        record = record[part]
    return record


def matches(value, query):
    """Whether a value satisfies a query such as `a|b`, `!x`, `*x*`, `>5`, `10..20`, `null`."""
    if query.startswith("!") and query != "!null":
        return not matches(value, query[1:])
    if query in ("null", "!null"):
        return (value is None) == (query == "null")
    return any(matches_one(value, each) for each in query.split("|"))


def matches_one(value, query):
    if value is None:
        return False
    if isinstance(value, bool):
        return query.lower() == str(value).lower()
    if isinstance(value, (int, float)):
        low, dots, high = query.partition("..")
        if dots:
            return float(low) <= value <= float(high)
        for sign, compare in ((">=", value.__ge__), ("<=", value.__le__), (">", value.__gt__), ("<", value.__lt__)):
            if query.startswith(sign):
                return bool(compare(float(query[len(sign) :])))
        return query == str(value)
    # Double quotes take an operator's meaning away.
    if query.startswith('"') and query.endswith('"') and len(query) > 1:
        return value == query[1:-1]
    return fnmatchcase(value, query.replace("[", "[[]")) if "*" in query else value == query


def selected(record, identity, wanted, expensive):
    """The record with its identity and the wanted members; `*` leaves the expensive ones out, `**` does not."""
    result = {}
    names = set(identity) | {name for name in wanted if name not in ("*", "**")}
    if "*" in wanted or "**" in wanted:
        names |= {key for key in record if "**" in wanted or key not in expensive}
    for name in names:
        value = dig(record, name)
        if value is None:
            continue
        target = result
        *parents, last = name.split(".")
        for part in parents:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                break
        else:
            # `space` and `space.used` may both be asked for: the wider one wins.
            if isinstance(value, dict) and isinstance(target.get(last), dict):
                target[last] = merged(target[last], value)
            else:
                target[last] = value
    if "_links" in record:
        result["_links"] = record["_links"]
    return result


def merged(one, other):
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def wanted_fields(parameters):
    return [name for name in parameters.get("fields", "").split(",") if name]


def collection(path, records, parameters, identity, key, cap, expensive=(), ignored=()):
    """The envelope of a collection: what the filters leave, one page of it.

    `key` tells a record's place in the order; it serves as the opaque `start.key` parameter of the next page.
    """
    filters = {
        name: query
        for name, query in parameters.items()
        if name not in GENERIC and name not in ignored and not name.startswith("start.")
    }
    found = [record for record in records if all(matches(dig(record, name), query) for name, query in filters.items())]
    found.sort(key=key)
    if (start := parameters.get("start.key")) is not None:
        found = [record for record in found if key(record) >= type(key(record))(start)]
    size = min(int(parameters.get("max_records", cap)), cap)
    page, rest = found[:size], found[size:]
    fields = wanted_fields(parameters) + list(filters)
    answer = {
        "records": [selected(record, identity, fields, expensive) for record in page],
        "num_records": len(page),
        "_links": {"self": {"href": f"{path}?{urlencode(parameters)}" if parameters else path}},
    }
    if parameters.get("return_records", "true").lower() == "false":
        return {"num_records": len(found), "_links": answer["_links"]}
    if rest:
        following = {name: value for name, value in parameters.items() if not name.startswith("start.")}
        following["start.key"] = key(rest[0])
        following["max_records"] = size
        answer["_links"]["next"] = {"href": f"{path}?{urlencode(following)}"}
    return answer


def nested(body):
    """A request body with dotted names unfolded and "true"/"false" as booleans."""
    result = {}
    for name, value in body.items():
        if isinstance(value, dict):
            value = nested(value)
        elif value in ("true", "false"):
            value = value == "true"
        target = result
        *parents, last = name.split(".")
        for part in parents:
            target = target.setdefault(part, {})
        both = isinstance(value, dict) and isinstance(target.get(last), dict)
        target[last] = merged(target[last], value) if both else value
    return result
