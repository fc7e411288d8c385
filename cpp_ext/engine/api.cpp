// The C interface of the engine: what is thrown becomes a status and a message.
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "awase/engine.h"
#include "engine/bundle.h"
#include "engine/session.h"
#include "engine/stream.h"
#include "src/check.h"
#include "src/error.h"

struct awase_bundle {
  explicit awase_bundle(const char *folder) : bundle(folder) {}
  awase::engine::Bundle bundle;
};

struct awase_session {
  std::shared_ptr<const awase::engine::Session> session;
};

struct awase_stream {
  awase_stream(const awase_session &session, const awase_stream_options &options) : stream(session.session, options) {}
  awase::engine::Stream stream;
};

namespace {

thread_local std::string message;

awase_status failed(awase_status status, const char *text) noexcept {
  try {
    message = text;
  } catch (...) {  // no memory for it: the status must do
    message.clear();
  }
  return status;
}

template <class Call>
awase_status guard(Call call) noexcept {
  try {
    call();
    return AWASE_OK;
  } catch (const awase::Error &error) {
    return failed(error.status, error.what());
  } catch (const std::bad_alloc &) {
    return failed(AWASE_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::length_error &) {  // more than a vector can hold
    return failed(AWASE_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception &error) {
    return failed(AWASE_INTERNAL, error.what());
  } catch (...) {
    return failed(AWASE_INTERNAL, "an unknown exception");
  }
}

template <class Pointer>
Pointer &given(const char *name, Pointer *pointer, const char *expected) {
  if (!pointer) awase::refuse(name, "NULL", expected);
  return *pointer;
}

}  // namespace

extern "C" {

int awase_engine_version(void) { return AWASE_ENGINE_VERSION; }

const char *awase_engine_last_error(void) { return message.c_str(); }

awase_status awase_bundle_open(const char *folder, awase_bundle **bundle) {
  return guard([&] {
    given("bundle", bundle, "where to put the bundle") = nullptr;
    *bundle = new awase_bundle(&given("folder", folder, "a bundle's folder"));
  });
}

void awase_bundle_close(awase_bundle *bundle) { delete bundle; }

const char *awase_bundle_name(const awase_bundle *bundle) {
  return bundle ? bundle->bundle.manifest.name.c_str() : "";
}

int32_t awase_bundle_graphs(const awase_bundle *bundle, const awase_graph **graphs) {
  if (!bundle) return 0;
  if (graphs) *graphs = bundle->bundle.description.graphs().data();
  return int32_t(bundle->bundle.description.graphs().size());
}

awase_status awase_session_open(const awase_bundle *bundle, const awase_session_options *options,
                                awase_session **session) {
  return guard([&] {
    given("session", session, "where to put the session") = nullptr;
    const awase_session_options &chosen = options ? *options : awase_session_options{};
    *session = new awase_session{
        std::make_shared<awase::engine::Session>(given("bundle", bundle, "an open bundle").bundle, chosen)};
  });
}

void awase_session_close(awase_session *session) { delete session; }

const awase_graph *awase_session_graph(const awase_session *session) {
  return session ? &session->session->description() : nullptr;
}

awase_status awase_session_run(awase_session *session, const awase_tensor *inputs, int32_t input_count,
                               const awase_tensor *outputs, int32_t output_count) {
  return guard(
      [&] { given("session", session, "an open session").session->run(inputs, input_count, outputs, output_count); });
}

awase_status awase_session_generate(awase_session *session, uint64_t seed, uint64_t first, const awase_tensor *outputs,
                                    int32_t output_count) {
  return guard([&] {
    awase::engine::Scratch scratch;
    given("session", session, "an open session").session->generate(seed, first, outputs, output_count, scratch);
  });
}

awase_status awase_stream_open(awase_session *session, const awase_stream_options *options, awase_stream **stream) {
  return guard([&] {
    given("stream", stream, "where to put the stream") = nullptr;
    const awase_stream_options &chosen = options ? *options : awase_stream_options{};
    *stream = new awase_stream(given("session", session, "an open session"), chosen);
  });
}

awase_status awase_stream_next(awase_stream *stream, const awase_tensor **outputs, int64_t *count) {
  return guard([&] {
    given("count", count, "where to put the number of samples") = 0;
    given("outputs", outputs, "where to put the tensors") = nullptr;
    *count = given("stream", stream, "an open stream").stream.next(outputs);
  });
}

void awase_stream_close(awase_stream *stream) { delete stream; }

}  // extern "C"
