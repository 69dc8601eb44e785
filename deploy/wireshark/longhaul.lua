-- Longhaul's frame_messages over TCP and Unix sockets, as far as they are in the clear: who, which lane, which keys, which
-- packet, and what kind of body; what is sealed stays sealed. The contract is proto/longhaul.proto.
--
--   wireshark -X lua_script:longhaul.lua        then: Decode As, TCP port, longhaul
--   tshark -X lua_script:longhaul.lua -d tcp.port==7443,longhaul -r FILE
--
-- tls:// and quic:// channels are TLS and QUIC to everybody outside.

local longhaul = Proto("longhaul", "Longhaul frame_message")

local LEVELS = { [0] = "initial", [1] = "handshake", [2] = "traffic" }
local KINDS = { [0] = "tcp", [1] = "unix", [2] = "tls", [3] = "quic" }
local ROLES = { [0] = "active", [1] = "standby" }
local BODIES = {
    [8] = "handshake", [9] = "sealed_handshake", [10] = "sealed", [11] = "plain", [12] = "join", [13] = "joined",
    [14] = "start", [15] = "started", [16] = "version_list", [17] = "refused", [18] = "session_reset",
}

local f = {
    length = ProtoField.uint32("longhaul.length", "Length"),
    version = ProtoField.uint32("longhaul.version", "Version"),
    session = ProtoField.bytes("longhaul.session", "Session id"),
    lane = ProtoField.uint32("longhaul.lane", "Lane"),
    epoch = ProtoField.uint32("longhaul.epoch", "Key epoch"),
    packet = ProtoField.uint64("longhaul.packet", "Packet number"),
    body = ProtoField.string("longhaul.body", "Body"),
    data = ProtoField.bytes("longhaul.data", "Bytes of the body"),
    level = ProtoField.uint32("longhaul.handshake.level", "Level", base.DEC, LEVELS),
    offset = ProtoField.uint32("longhaul.handshake.offset", "Offset"),
    tls = ProtoField.bytes("longhaul.handshake.data", "TLS messages"),
    kind = ProtoField.uint32("longhaul.join.kind", "Kind of channel", base.DEC, KINDS),
    nonce = ProtoField.bytes("longhaul.join.nonce", "Nonce"),
    binding = ProtoField.bytes("longhaul.join.binding", "Channel binding"),
    lanes = ProtoField.uint32("longhaul.join.lanes", "Lanes"),
    mac = ProtoField.bytes("longhaul.join.mac", "Proof"),
    weight = ProtoField.uint32("longhaul.join.weight", "Weight"),
    priority = ProtoField.uint32("longhaul.join.priority", "Priority"),
    role = ProtoField.uint32("longhaul.join.role", "Role", base.DEC, ROLES),
    offered = ProtoField.uint32("longhaul.version_list.version", "Version offered"),
    token = ProtoField.bytes("longhaul.session_reset.token", "Token"),
}
longhaul.fields = f

local malformed = ProtoExpert.new("longhaul.malformed", "Not a frame_message", expert.group.MALFORMED, expert.severity.ERROR)
longhaul.experts = { malformed }

-- The fields of each message: number, then the field and whether it is a number.
local HEAD = { [1] = { f.version, true }, [2] = { f.session }, [3] = { f.lane, true }, [4] = { f.epoch, true }, [5] = { f.packet, true, true } }
local INSIDE = {
    handshake = { [1] = { f.level, true }, [2] = { f.offset, true }, [3] = { f.tls } },
    join = {
        [1] = { f.kind, true }, [2] = { f.nonce }, [3] = { f.binding }, [4] = { f.lanes, true }, [5] = { f.mac },
        [6] = { f.weight, true }, [7] = { f.priority, true }, [8] = { f.role, true },
    },
    joined = { [1] = { f.nonce }, [2] = { f.mac } },
    version_list = { [1] = { f.offered, true } },
    session_reset = { [1] = { f.token } },
}

-- Of a longer frame_message no node is: then this is something else.
local LENGTH_MAX = 1048576

-- The varint at a place: its value as a number and as UInt64, and what comes after it; nothing if it is cut off.
local function varint(tvb, at, limit)
    local small, large, factor = 0, UInt64(0), 1
    for index = 0, 9 do
        if at + index >= limit then return nil end
        local byte = tvb(at + index, 1):uint()
        small = small + (byte % 128) * factor
        large = large + UInt64(byte % 128):lshift(7 * index)
        if byte < 128 then return small, large, at + index + 1 end
        factor = factor * 128
    end
    return nil
end

-- Calls `take` with number, range, value, large value and start of each field. Whether the message is well formed.
local function each_field(tvb, at, limit, take)
    while at < limit do
        local start = at
        local key, _, after = varint(tvb, at, limit)
        if not key then return false end
        local number, wire = math.floor(key / 8), key % 8
        if wire == 0 then
            local value, large, next = varint(tvb, after, limit)
            if not value then return false end
            take(number, tvb(start, next - start), value, large)
            at = next
        elseif wire == 2 then
            local length, _, begin = varint(tvb, after, limit)
            if not length or begin + length > limit then return false end
            take(number, length > 0 and tvb(begin, length) or nil, nil, nil, begin, length)
            at = begin + length
        else
            return false
        end
    end
    return true
end

local function add(tree, known, range, value, large)
    if known[2] then
        if value then tree:add(known[1], range, known[3] and large or value) end
    elseif range then
        tree:add(known[1], range)
    end
end

local function dissect_message(tvb, pinfo, tree, start, begin, length)
    local item = tree:add(longhaul, tvb(start, begin - start + length))
    item:add(f.length, tvb(start, begin - start), length)
    local body, lane, packet
    local is_good = each_field(tvb, begin, begin + length, function(number, range, value, large, inner, size)
        local known = HEAD[number]
        if known then
            if number == 3 then lane = value end
            if number == 5 then packet = tostring(large) end
            add(item, known, range, value, large)
        elseif BODIES[number] and not value then
            body = BODIES[number]
            local part = item:add(f.body, range or tvb(begin, 0), body)
            local inside = INSIDE[body]
            if inside and size > 0 then
                each_field(tvb, inner, inner + size, function(field, of, small, big)
                    if inside[field] then add(part, inside[field], of, small, big) end
                end)
            elseif range then
                part:add(f.data, range)
            end
        end
    end)
    if not is_good or not body then item:add_proto_expert_info(malformed) end
    local words = body or "malformed"
    if packet or body == "sealed" or body == "plain" then words = words .. " " .. (lane or 0) .. ":" .. (packet or 0) end
    item:append_text(": " .. words)
    return words
end

function longhaul.dissector(tvb, pinfo, tree)
    pinfo.cols.protocol = "Longhaul"
    local at, limit, words = 0, tvb:len(), {}
    while at < limit do
        local length, _, begin = varint(tvb, at, limit)
        if length and length > LENGTH_MAX then
            tree:add(longhaul, tvb(at)):add_proto_expert_info(malformed)
            return limit
        end
        if not length or begin + length > limit then
            pinfo.desegment_offset = at
            pinfo.desegment_len = length and (begin + length - limit) or DESEGMENT_ONE_MORE_SEGMENT
            break
        end
        words[#words + 1] = dissect_message(tvb, pinfo, tree, at, begin, length)
        at = begin + length
    end
    if #words > 0 then pinfo.cols.info = table.concat(words, ", ") end
    return limit
end

DissectorTable.get("tcp.port"):add_for_decode_as(longhaul)
