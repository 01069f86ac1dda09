"""Why we ended a connection: a closed list, for GOAWAY frames, log lines and metrics alike."""

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """Why a connection was ended by us: debug data of the GOAWAY, and metric labels."""

    PROTOCOL = "protocol"
    FLOW_CONTROL = "flow_control"
    FRAME_SIZE = "frame_size"
    STREAM_CLOSED = "stream_closed"
    COMPRESSION = "compression"
    HEADER_LIST = "header_list"
    CONTINUATION_FLOOD = "continuation_flood"
    SETTINGS_FLOOD = "settings_flood"
    PING_FLOOD = "ping_flood"
    RESET_FLOOD = "reset_flood"
    USED_RESET_FLOOD = "used_reset_flood"
    EMPTY_FRAME_FLOOD = "empty_frame_flood"
    WINDOW_UPDATE_FLOOD = "window_update_flood"
    IDLE_FRAME_FLOOD = "idle_frame_flood"
    STREAM_ERROR_FLOOD = "stream_error_flood"
    UNREAD_ANSWERS = "unread_answers"
    SLOW_PREFACE = "slow_preface"
    NO_ALPN = "no_alpn"
