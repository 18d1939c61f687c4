/* Reads the poses that `logocappose` puts on buffers, in C: plays a pipeline and prints a line per person.
 *
 *   cc -O2 -o pose_reader pose_reader.c $(pkg-config --cflags --libs gstreamer-1.0) -lm
 *   eval "$(posesdk gst env)"
 *   ./pose_reader "filesrc location=VIDEO ! decodebin ! videoconvert ! logocappose ! fakesink name=poses"
 *
 * The poses are read where they arrive at the element named `poses`. On Debian and Ubuntu, the headers are in
 * libgstreamer1.0-dev. A line holds what the JSON of the same frame holds, pixels rounded to 3 decimals:
 *
 *   frame INDEX person NUMBER score SCORE  X Y SCORE  X Y SCORE  ...
 */

#include <math.h>

#include <gst/gst.h>

#define META_NAME "LogocapPoseMeta"
#define META_VERSION 1

/* The floats of a field of type GBytes, NULL where there are fewer than `count`; `bytes` is to be freed. */
static const gfloat *
floats (const GstStructure * s, const gchar * field, gsize count, GBytes ** bytes)
{
  gsize size = 0;
  const gfloat *values;

  *bytes = NULL;
  if (!gst_structure_get (s, field, G_TYPE_BYTES, bytes, NULL) || *bytes == NULL)
    return NULL;
  values = g_bytes_get_data (*bytes, &size);
  return size >= count * sizeof (gfloat) ? values : NULL;
}

/* A part of the frame (0..1 from edge to edge) as a pixel, where 0 is the center of the first one. */
static gdouble
pixel (gfloat part, gint size)
{
  return rint (((gdouble) part * size - 0.5) * 1000) / 1000 + 0.0;  /* no -0.0 */
}

static void
print_people (const GstStructure * s)
{
  gint version = 0, persons = 0, points = 0, width = 0, height = 0;
  guint64 index = 0;
  GBytes *keypoint_bytes = NULL, *score_bytes = NULL;
  const gfloat *keypoint, *scores;

  if (!gst_structure_get (s, "version", G_TYPE_INT, &version, NULL) || version != META_VERSION) {
    g_printerr ("expected " META_NAME " of version %d, got %d\n", META_VERSION, version);
    return;
  }
  if (!gst_structure_get (s, "num-persons", G_TYPE_INT, &persons, "num-keypoints", G_TYPE_INT, &points,
          "width", G_TYPE_INT, &width, "height", G_TYPE_INT, &height, "index", G_TYPE_UINT64, &index, NULL)
      || persons < 0 || points < 1)
    return;
  keypoint = floats (s, "keypoints", (gsize) persons * points * 3, &keypoint_bytes);
  scores = floats (s, "scores", persons, &score_bytes);
  if (keypoint && scores) {
    for (gint p = 0; p < persons; p++) {
      g_print ("frame %" G_GUINT64_FORMAT " person %d score %.9g", index, p, scores[p]);
      for (gint k = 0; k < points; k++, keypoint += 3)
        g_print ("  %.3f %.3f %.9g", pixel (keypoint[0], width), pixel (keypoint[1], height), keypoint[2]);
      g_print ("\n");
    }
  }
  g_clear_pointer (&keypoint_bytes, g_bytes_unref);
  g_clear_pointer (&score_bytes, g_bytes_unref);
}

static GstPadProbeReturn
on_buffer (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta (GST_PAD_PROBE_INFO_BUFFER (info), META_NAME);

  (void) pad, (void) user_data;
  if (meta)
    print_people (gst_custom_meta_get_structure (meta));
  return GST_PAD_PROBE_OK;
}

/* Waits for the end; whether it came without an error. */
static gboolean
play (GstElement * pipeline)
{
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  gboolean ended;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  message = gst_bus_timed_pop_filtered (bus, GST_CLOCK_TIME_NONE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  ended = GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS;
  if (!ended) {
    GError *error = NULL;
    gst_message_parse_error (message, &error, NULL);
    g_printerr ("%s: %s\n", GST_OBJECT_NAME (GST_MESSAGE_SRC (message)), error->message);
    g_error_free (error);
  }
  gst_message_unref (message);
  gst_object_unref (bus);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  return ended;
}

int
main (int argc, char **argv)
{
  GstElement *pipeline, *reader;
  GstPad *pad;
  GError *error = NULL;
  gboolean ended;

  gst_init (&argc, &argv);
  if (argc != 2) {
    g_printerr ("usage: pose_reader \"... ! logocappose ! fakesink name=poses\"\n");
    return 2;
  }
  /* A name that nobody has registered is a critical warning; the elements register it only when they are loaded. */
  if (!gst_meta_get_info (META_NAME))
    gst_meta_register_custom (META_NAME, (const gchar *[]) { NULL }, NULL, NULL, NULL);
  pipeline = gst_parse_launch (argv[1], &error);
  reader = pipeline && GST_IS_BIN (pipeline) ? gst_bin_get_by_name (GST_BIN (pipeline), "poses") : NULL;
  pad = reader ? gst_element_get_static_pad (reader, "sink") : NULL;
  if (error || !pad) {
    g_printerr ("%s\n", error ? error->message : "the pipeline has no element named `poses` with a sink pad");
    g_clear_error (&error);
    gst_clear_object (&reader);
    gst_clear_object (&pipeline);
    return 1;
  }
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, on_buffer, NULL, NULL);
  ended = play (pipeline);
  gst_object_unref (pad);
  gst_object_unref (reader);
  gst_object_unref (pipeline);
  return ended ? 0 : 1;
}
