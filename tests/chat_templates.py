"""Chat templates in the styles that real models have, written for these tests."""

LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}\
{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}\
{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate: user, assistant, user, ...') }}{% endif %}\
{% if loop.index0 == 0 and system %}\
{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}\
{% endfor %}"""

LLAMA_3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN_3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query_index=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>' ~ '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {% generation %}{{- content }}{% endgeneration %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

QWEN_2 = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CHATML = """\
{% for message in messages %}
    {% if message['role'] == 'skip' %}
        {% continue %}
    {% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

MISTRAL = """\
{%- macro parts(content) -%}
    {%- for line in content.split('\\n') if line | length > 0 %}{{ line }}{{ '\\n' if not loop.last }}{% endfor -%}
{%- endmacro -%}
{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and message == user_messages[-1] %}
            {{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + parts(message["content"]) + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "system" %}
        {%- set text %}{{ message["content"] | upper }}{% endset %}
        {{- text | replace("\\n", " ") | indent(2) }}
    {%- else %}
        {{- raise_exception("Only user, system and assistant roles are supported: " ~ message["role"]) }}
    {%- endif %}
{%- endfor %}
"""

REAL_LIFE = {
    "llama_2": LLAMA_2, "llama_3": LLAMA_3, "qwen_2": QWEN_2, "qwen_3": QWEN_3, "chatml": CHATML, "mistral": MISTRAL,
}  # fmt: skip

# What a template must not do, and what the refusal says.
_DOUBLE = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}"
HOSTILE = {
    "attribute": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "attribute filter": ("{{ (messages | attr('__class__')).__base__ }}", "unsafe"),
    "function internals": ("{{ raise_exception.__globals__.keys() }}", "unsafe"),
    "mutation": ("{{ messages.append(1) }}", "unsafe"),
    "range": ("{% for i in range(3000000) %}{% endfor %}", "steps"),
    "nested loops": ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "steps"),
    "nested lists": ("{% for i in range(9999) %}{{ range(9999) | map('upper') | list | length }}{% endfor %}", "steps"),
    "output": ("{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}", "characters"),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "does not end"),
    "recursive loop": ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "does not end"),
    "multiply": ("{{ ('a' * 10000000000) | length }}", "unsafe"),
    "multiply list": ("{{ ([1] * 10000000000) | length }}", "unsafe"),
    "power": ("{{ 10 ** 10 ** 10 }}", "unsafe"),
    "double with +": (_DOUBLE + "{% set ns.x = ns.x + ns.x %}{% endfor %}", "unsafe"),
    "double with ~": (_DOUBLE + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "unsafe"),
    "double with set": (
        _DOUBLE + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "unsafe",
    ),
    "double with join": (_DOUBLE + "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}", "unsafe"),
    "double with replace": (_DOUBLE + "{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}", "unsafe"),
    "double with method": (_DOUBLE + "{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}", "unsafe"),
    "double with format": (_DOUBLE + "{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}", "unsafe"),
    "double lists": (_DOUBLE + "{% set ns.x = [ns.x, ns.x] | string %}{% endfor %}", "unsafe"),
    "pad": ("{{ 'a'.center(10000000000) | length }}", "unsafe"),
    "pad filter": ("{{ 'a' | center(10000000000) | length }}", "unsafe"),
    "wide format": ("{{ '%10000000000d' % 1 }}", "unsafe"),
    "wide format method": ("{{ '{:10000000000}'.format(1) }}", "unsafe"),
    "wide indent": ("{{ [1] | tojson(indent=10000000000) }}", "unsafe"),
    "syntax": ("{% for message in messages %}", "line 1"),
    "unknown tag": ("{% import 'os' as os %}{% frob %}", "line 1"),
    "import": ("{% include '/etc/passwd' %}", "wants another"),
}
