"""What do coding agents send to a hook, and what is each one's yes?"""

from __future__ import annotations

from typing import Any

COMMAND = "touch /work/made && echo it-ran"

# As the agents send them (claude-code 2.1, codex 0.171, gemini-cli 0.61, and our plugin in opencode 1.18).
EVENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("claude-code", "PermissionRequest"): {
        "session_id": "f5221b66-d799-4f52-ba80-7b85ec30b0aa",
        "transcript_path": "/home/me/.claude/projects/-work/f5221b66-d799-4f52-ba80-7b85ec30b0aa.jsonl",
        "cwd": "/work",
        "prompt_id": "9629a19b-b17a-4fd2-a87a-de6609ad575c",
        "permission_mode": "default",
        "effort": {"level": "medium"},
        "hook_event_name": "PermissionRequest",
        "tool_name": "Bash",
        "tool_input": {"command": COMMAND, "description": "make a file"},
        "permission_suggestions": [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}],
    },
    ("claude-code", "PreToolUse"): {
        "session_id": "f5221b66-d799-4f52-ba80-7b85ec30b0aa",
        "cwd": "/work",
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": COMMAND, "description": "make a file"},
        "tool_use_id": "toolu_1795867351499",
    },
    ("codex", "PermissionRequest"): {
        "session_id": "01a22236-7b23-7f00-8fbe-d1c17eeb43bf",
        "turn_id": "01a22236-97cb-7082-9a23-811b872fa726",
        "transcript_path": "/home/me/.codex/sessions/2026/11/28/rollout.jsonl",
        "cwd": "/work",
        "hook_event_name": "PermissionRequest",
        "model": "fake",
        "permission_mode": "default",
        "tool_name": "Bash",
        "tool_input": {"command": COMMAND, "description": "make a file"},
    },
    ("codex", "PreToolUse"): {
        "session_id": "01a22236-7b23-7f00-8fbe-d1c17eeb43bf",
        "cwd": "/work",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": COMMAND, "description": "make a file"},
        "tool_use_id": "call_1",
    },
    ("gemini", "BeforeTool"): {
        "session_id": "671d3c90-8a67-478e-8f5c-5b33a8a3b236",
        "transcript_path": "/home/me/.gemini/tmp/gemini/chats/session.json",
        "cwd": "/work",
        "hook_event_name": "BeforeTool",
        "timestamp": "2026-11-28T12:45:57.878Z",
        "tool_name": "run_shell_command",
        "tool_input": {"command": COMMAND, "description": "make a file"},
    },
    ("opencode", "tool.execute.before"): {
        "hook": "tool.execute.before",
        "input": {"tool": "bash", "sessionID": "ses_dddccc20bffeYzC60f2GKDKiU7", "callID": "call_1795870119434"},
        "output": {"args": {"command": COMMAND, "description": "make a file"}},
        "cwd": "/work",
    },
}

YES = {
    ("claude-code", "PermissionRequest"): {
        "hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": {"behavior": "allow"}}
    },
    ("claude-code", "PreToolUse"): {
        "hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "allow"}
    },
    ("codex", "PermissionRequest"): {
        "hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": {"behavior": "allow"}}
    },
    ("codex", "PreToolUse"): None,  # an explicit yes is a failure to Codex
    ("gemini", "BeforeTool"): {"decision": "allow"},
    ("opencode", "tool.execute.before"): {"decision": "allow"},
}
