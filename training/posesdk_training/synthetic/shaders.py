"""The programs that run on the graphics processor (GLSL 3.30)."""

__all__ = ["FRAGMENT_SHADER", "MAX_BONES", "VERTEX_SHADER"]

MAX_BONES = 168

VERTEX_SHADER = """#version 330
layout(std140) uniform Bones { mat4 bone[168]; };
uniform mat4 projection;
uniform vec4 ground;
uniform vec3 sun;
uniform int shadow;
in vec3 position; in vec3 normal; in vec2 texture_at; in float slot; in uvec4 bones; in vec4 shares;
out vec3 normal_; out vec2 texture_; flat out int slot_; out vec3 point; out vec3 rest;
void main() {
    mat4 skin = bone[bones.x] * shares.x + bone[bones.y] * shares.y
        + bone[bones.z] * shares.z + bone[bones.w] * shares.w;
    point = (skin * vec4(position, 1.)).xyz;
    normal_ = mat3(skin) * normal; texture_ = texture_at; slot_ = int(slot + .5); rest = position;
    if (shadow == 1) {  // onto the ground, away from the sun
        float way = (ground.w - dot(ground.xyz, point)) / dot(ground.xyz, -sun);
        point -= sun * way;
    }
    gl_Position = projection * vec4(point, 1.);
}"""

FRAGMENT_SHADER = """#version 330
uniform vec4 colors[20];
uniform vec4 patterns[20];
uniform sampler2DArray layers;
uniform vec3 sun; uniform vec3 sun_color; uniform vec3 fill; uniform vec3 fill_color;
uniform vec3 sky_color; uniform vec3 ground_color; uniform vec3 up;
uniform int shadow; uniform float person;
in vec3 normal_; in vec2 texture_; flat in int slot_; in vec3 point; in vec3 rest;
layout(location = 0) out vec4 color_out;
layout(location = 1) out vec2 depth_out;
vec3 folded(vec3 n, float amount) {  // bumps from a height map, by its derivatives on the screen
    float height = texture(layers, vec3(rest.xy * .13 + rest.z * .05, 2.)).r * amount;
    vec3 along_x = dFdx(point), along_y = dFdy(point);
    vec3 a = cross(along_y, n), b = cross(n, along_x);
    float area = dot(along_x, a);
    vec3 slope = sign(area) * (dFdx(height) * a + dFdy(height) * b);
    return normalize(abs(area) * n - slope);
}
void main() {
    if (shadow == 1) { color_out = vec4(1.); depth_out = vec2(0.); return; }
    vec4 color = colors[slot_]; vec4 pattern = patterns[slot_];
    vec2 at = pattern.x >= 0. ? texture_ * pattern.y : rest.xy * .1 * pattern.y;
    vec3 albedo = mix(color.rgb, texture(layers, vec3(at, abs(pattern.x))).rgb, pattern.z);
    vec3 n = normalize(normal_);
    if (!gl_FrontFacing) n = -n;
    if (color.a > 0.) n = folded(n, color.a);
    vec3 view = normalize(-point);
    vec3 light = mix(ground_color, sky_color, dot(n, up) * .5 + .5)
        + sun_color * max(dot(n, sun), 0.) + fill_color * max(dot(n, fill), 0.);
    float gloss = pow(max(dot(normalize(sun + view), n), 0.), 24.) * pattern.w;
    color_out = vec4(pow(clamp(albedo * light + sun_color * gloss, 0., 1.), vec3(1. / 2.2)), 1.);
    depth_out = vec2(person, -point.z);
}"""
